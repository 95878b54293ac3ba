"""A small labelled data set to try everything on at once: five kinds of photo-like pictures, drawn, not stored.

Each picture is composed from (seed, class, index) alone: pose, number, colours, season, daylight, background,
focus and sensor noise vary, and every class comes in every light, so that shape and texture tell the classes
apart and no single colour does. Each scene is seen through a window pane that reflects another one. The reflections are
there on purpose to make the classes harder: without them a small network reached 99 % within a few passes, and noise
of 8/255 did not stop it. What protection reaches on this sample therefore says nothing about easier data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pueprotect.errors import InputError
from pueprotect.runtime import child_seed

JPEG_QUALITY = 92
SMALLEST, LARGEST = 32, 512
_CLEARNESS = (0.52, 0.66)  # share of light that comes through the pane

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
Point = tuple[float, float]

# Zenith and horizon of the sky, colour of the direct light.
_LIGHTS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((62, 118, 196), (176, 208, 234), (255, 250, 238)),
    ((96, 152, 214), (222, 232, 238), (255, 252, 246)),
    ((84, 98, 150), (250, 194, 134), (255, 214, 166)),
    ((148, 158, 170), (206, 210, 214), (226, 230, 236)),
    ((58, 54, 104), (238, 142, 122), (246, 184, 170)),
    ((110, 128, 146), (196, 200, 198), (238, 236, 226)),
)
_PAINTS: tuple[Colour, ...] = (
    (196, 44, 40),
    (226, 126, 34),
    (240, 200, 52),
    (58, 140, 72),
    (40, 104, 178),
    (108, 62, 142),
    (238, 234, 224),
    (44, 48, 58),
    (214, 92, 130),
    (66, 170, 178),
)


def write_sample(dest: str | Path, *, per_class: int = 150, size: int = 32, seed: int = 0) -> int:
    """Write `dest`/CLASS/NNNN.jpg for five classes and return the number of images.

    Args:
        dest: a folder that is empty or not there yet.
        per_class: images per class, at least 1.
        size: side of the square images in pixels, `SMALLEST` to `LARGEST`.
        seed: image i of a class depends on (seed, class, i) and `size` alone.

    Raises:
        InputError: `dest` is not an empty folder or a number is out of range.
    """
    dest = Path(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise InputError(f"{dest} is not an empty folder; name one that is empty or does not exist yet.")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size {size} is not between {SMALLEST} and {LARGEST} pixels.")
    if per_class < 1:
        raise InputError(f"{per_class} images per class are too few; write at least 1.")
    for name in CLASSES:
        (dest / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            image = draw(name, index, size=size, seed=seed)
            image.save(dest / name / f"{index:04d}.jpg", quality=JPEG_QUALITY, subsampling=0)
    return per_class * len(CLASSES)


def draw(name: str, index: int, *, size: int = 64, seed: int = 0) -> Image.Image:
    """One RGB picture of class `name` (a key of `CLASSES`), size x size pixels."""
    side = size * (3 if size < 64 else 2)
    window = np.random.default_rng(child_seed(seed, f"sample/{name}/window", index))
    scene, shown = _seen(name, child_seed(seed, f"sample/{name}", index), side, window)
    other = list(CLASSES)[window.integers(len(CLASSES))]
    _, reflected = _seen(other, child_seed(seed, f"sample/{name}/reflection", index), side, window)
    scene.image = Image.blend(reflected, shown, window.uniform(*_CLEARNESS))
    return scene.develop(size)


def _seen(name: str, seed: int, side: int, window: np.random.Generator) -> tuple[_Scene, Image.Image]:
    """A scene of a class, and the part of it that the photographer shows."""
    scene = _Scene(np.random.default_rng(seed), side)
    CLASSES[name](scene)
    extent = window.uniform(0.6, 1.0)
    left, top = window.uniform(0, 1 - extent, 2)
    box = (left * side, top * side, (left + extent) * side, (top + extent) * side)
    return scene, scene.image.resize((side, side), Image.Resampling.BILINEAR, box)


class _Scene:
    """A canvas in unit coordinates, (0, 0) top left, with one light for everything in it."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng = rng
        self.side = side
        zenith, horizon, sun = _LIGHTS[rng.integers(len(_LIGHTS))]
        self.zenith, self.horizon = self.vary(zenith, 12), self.vary(horizon, 10)
        self.sun_rgb = (sun[0] / 255, sun[1] / 255, sun[2] / 255)
        self.sun = np.array(self.sun_rgb, dtype=np.float32)
        self.sun_side = float(rng.choice((-1.0, 1.0)))
        grid = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x, self.y = np.meshgrid(grid, grid)
        self.image = Image.new("RGB", (side, side))
        self._pen_for, self._pen = self.image, ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def vary(self, colour: Colour, spread: float) -> Colour:
        shift = self.rng.normal(0, spread / 2) + self.rng.normal(0, spread / 2, 3)
        return _rgb(np.array(colour) + shift)

    def paint(self) -> Colour:
        return self.vary(_PAINTS[self.rng.integers(len(_PAINTS))], 24)

    def noise(self, cells: tuple[int, int], octaves: int = 3) -> Array:
        """Smooth noise in [-1, 1] with (rows, columns) cells in its coarsest octave."""
        total = np.zeros((self.side, self.side), dtype=np.float32)
        for octave in range(octaves):
            shape = tuple(min(count << octave, self.side) + 1 for count in cells)
            coarse = Image.fromarray(self.rng.uniform(-1, 1, shape).astype(np.float32))
            fine = coarse.resize(self.image.size, Image.Resampling.BICUBIC)
            total += np.asarray(fine) * 0.5 ** (octave + 1)
        return np.asarray(np.clip(total * 1.3, -1, 1), dtype=np.float32)

    def mask(self) -> tuple[Image.Image, Any]:
        """An empty stencil and a pen for it."""
        stencil = Image.new("L", self.image.size)
        return stencil, ImageDraw.Draw(stencil)

    def points(self, points: Any) -> list[Point]:
        return [(float(x) * self.side, float(y) * self.side) for x, y in points]

    def fill(self, stencil: Image.Image | Array | None, colours: Array) -> None:
        """Put (H, W, 3) or (3,) colours in 0..255 where the stencil (0..255, or 0..1 as an array) is set."""
        full = np.broadcast_to(np.clip(colours, 0, 255), (self.side, self.side, 3)).astype(np.uint8)
        if stencil is None:
            self.image = Image.fromarray(full)
        else:
            if not isinstance(stencil, Image.Image):
                stencil = Image.fromarray((np.clip(stencil, 0, 1) * 255).astype(np.uint8))
            self.image.paste(Image.fromarray(full), (0, 0), stencil)

    def shade(self, colour: Colour, light: Array | float) -> Array:
        """The colour in this scene's light, brighter or darker by `light` around 1."""
        lit = np.array(colour, dtype=np.float32) * self.sun
        return np.asarray(np.asarray(light, dtype=np.float32)[..., None] * lit, dtype=np.float32)

    def pen(self) -> Any:
        """A pen for the canvas; made anew only when the canvas is another image, since a forest takes thousands."""
        if self._pen_for is not self.image:
            self._pen_for, self._pen = self.image, ImageDraw.Draw(self.image)
        return self._pen

    def ink(self, colour: Colour, light: float) -> tuple[int, int, int]:
        """`shade` for one flat shape."""
        (r, g, b), (sun_r, sun_g, sun_b) = colour, self.sun_rgb
        return int(r * sun_r * light), int(g * sun_g * light), int(b * sun_b * light)

    def polygon(self, points: Any, colour: Colour, light: float = 1.0) -> None:
        self.pen().polygon(self.points(points), fill=self.ink(colour, light))

    def disc(self, x: float, y: float, radius: float, colour: Colour, light: float) -> None:
        left, top, wide = (x - radius) * self.side, (y - radius) * self.side, 2 * radius * self.side
        self.pen().ellipse((left, top, left + wide, top + wide), fill=self.ink(colour, light))

    def line(self, points: Any, colour: Colour, width: float, light: float = 1.0) -> None:
        thick = max(1, round(width * self.side))
        self.pen().line(self.points(points), self.ink(colour, light), thick, joint="curve")

    def sky(self, horizon: float) -> None:
        """Fill everything with sky that is lightest at `horizon`, perhaps cloudy, perhaps with the sun in it."""
        depth = np.clip(self.y / max(horizon, 0.05), 0, 1)[:, :1, None] ** self.between(0.7, 1.4)
        colours = _floats(self.zenith) * (1 - depth) + _floats(self.horizon) * depth
        if self.chance(0.75):
            cover = self.noise((int(self.rng.integers(2, 6)), 2), 4) + self.between(-0.45, 0.2)
            cloud = np.clip(cover * self.between(1.5, 4), 0, 0.9)[..., None]
            white = _floats(self.horizon) * 0.35 + 165 * self.sun
            colours = colours * (1 - cloud) + white * cloud
        if self.chance(0.25):
            away = np.hypot(self.x - self.between(0, 1), self.y - horizon * self.between(0.3, 1))
            colours = colours + (np.exp(-((away / 0.22) ** 2)) * 70)[..., None] * self.sun
        self.fill(None, colours.astype(np.float32))

    def ground(self, horizon: float, colour: Colour, grain: float = 0.25) -> None:
        """Land below a wavy `horizon`, its texture finer in the distance."""
        edge = horizon + 0.03 * self.noise((1, 3), 2)[0]
        light = 0.8 + 0.35 * (self.y - horizon) + grain * self.noise((24, 12), 3)
        self.fill((self.y > edge).astype(np.float32), self.shade(colour, light))

    def land(self) -> Colour:
        """A ground colour for any season."""
        kinds: tuple[Colour, ...] = ((92, 132, 58), (120, 140, 62), (168, 148, 92), (134, 110, 78), (222, 226, 232))
        return self.vary(kinds[self.rng.integers(len(kinds))], 18)

    def ridge(self, base: float, height: float, colour: Colour, haze: float) -> None:
        """A mountain or hill line, `haze` in [0, 1] of the way to the colour of the horizon."""
        top = base - height * (0.5 + 0.5 * self.noise((1, 3), 4)[self.side // 2])
        seen = self.shade(colour, 0.8 + 0.15 * self.noise((6, 6), 2)) * (1 - haze) + _floats(self.horizon) * haze
        self.fill((self.y > top).astype(np.float32), seen.astype(np.float32))

    def develop(self, size: int) -> Image.Image:
        """Reduce, then add what a camera adds: focus, exposure, white balance, vignette and sensor noise."""
        image = self.image
        if self.chance(0.5):
            image = image.filter(ImageFilter.GaussianBlur(self.side * self.between(0.001, 0.007)))
        image = image.resize((size, size), Image.Resampling.BOX)
        if self.chance(0.5):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(image, dtype=np.float32) / 255
        balance = 1 + 0.035 * self.rng.standard_normal(3, dtype=np.float32)
        pixels = pixels * balance * self.between(0.82, 1.15)
        pixels = pixels + self.between(0, 0.25) * (pixels - 0.5) * (1 - np.abs(2 * pixels - 1))
        grid = np.linspace(-1, 1, size, dtype=np.float32)
        pixels *= (1 - self.between(0, 0.22) * (grid[:, None] ** 2 + grid**2) / 2)[..., None]
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * self.between(0.65, 1.15)
        coloured, plain = (self.rng.standard_normal(part.shape, dtype=np.float32) for part in (pixels, grey))
        grain = 0.75 * coloured + 0.66 * plain
        pixels += self.between(0.004, 0.022) * grain * np.sqrt(np.clip(pixels, 0.05, 1))
        return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _floats(colour: Colour) -> Array:
    return np.array(colour, dtype=np.float32)


def _rgb(values: npt.NDArray[np.floating[Any]]) -> Colour:
    r, g, b = np.clip(values, 0, 255)
    return float(r), float(g), float(b)


def _balloon(scene: _Scene) -> None:
    """One to three hot-air balloons: striped gores, shaded as globes, a basket below."""
    horizon = scene.between(0.78, 1.15)
    scene.sky(horizon)
    for layer in range(scene.rng.integers(0, 3)):
        scene.ridge(horizon + 0.05 * layer, 0.2, scene.land(), 0.7 - 0.3 * layer)
    if horizon < 1:
        scene.ground(horizon, scene.land())
    count = int(scene.rng.choice((1, 1, 2, 3)))
    for number in range(count):
        main = number == count - 1
        radius = scene.between(0.17, 0.33) if main else scene.between(0.05, 0.11)
        x = scene.between(0.3, 0.7) if main else scene.between(0.08, 0.92)
        _one_balloon(scene, x, scene.between(radius * 0.8, 0.92 - 1.75 * radius), radius)


def _one_balloon(scene: _Scene, x: float, y: float, radius: float) -> None:
    mouth = y + 1.45 * radius
    below = np.clip((scene.y - y) / (mouth - y), 0, 1)
    half = np.where(
        scene.y < y,
        np.sqrt(np.clip(radius**2 - (scene.y - y) ** 2, 0, None)),
        radius * (0.13 + 0.87 * np.clip(np.cos(below * math.pi / 2), 0, 1) ** 0.85),
    )
    inside = (np.abs(scene.x - x) < half) & (scene.y > y - radius) & (scene.y < mouth)
    across = np.clip((scene.x - x) / np.maximum(half, 1e-4), -1, 1)
    angle = np.arcsin(across) + scene.between(0, math.pi)
    down = (scene.y - y) / radius
    gores = int(scene.rng.integers(8, 17))
    kind = scene.rng.integers(4)
    phase = angle / math.pi * gores
    if kind == 1:
        phase = phase + down * scene.between(1, 2.5)
    elif kind == 2:
        phase = (down + 1) * scene.between(2, 4)
    pick = np.floor(phase).astype(int) % (3 if scene.chance(0.4) else 2)
    paints = np.array([scene.paint() for _ in range(3)], dtype=np.float32)
    if kind == 3:
        band = np.abs(down - scene.between(-0.3, 0.4)) < scene.between(0.15, 0.4)
        pick = np.where(band, 1 + pick % 2, 0)
    seams = 1 - 0.22 * (np.abs(angle / math.pi * gores % 1 - 0.5) > 0.4)
    globe = 0.55 + 0.6 * np.clip(0.75 - 0.45 * (across * -scene.sun_side + 0.5 * down), 0, 1.1)
    basket = 0.13 * radius
    top, bottom = mouth + 0.35 * radius, mouth + 0.35 * radius + 1.5 * basket
    for side in (-1, 1):
        scene.line([(x + side * 0.12 * radius, mouth), (x + side * basket, top)], (60, 50, 40), radius * 0.03)
    scene.polygon(
        [(x - basket, top), (x + basket, top), (x + 0.85 * basket, bottom), (x - 0.85 * basket, bottom)],
        (112, 74, 40),
    )
    scene.fill(inside.astype(np.float32), paints[pick] * (globe * seams)[..., None] * scene.sun)


def _forest(scene: _Scene) -> None:
    """Rows of conifers or broad-leaved trees, nearer rows larger, lower and clearer."""
    horizon = scene.between(0.25, 0.5)
    scene.sky(horizon)
    if scene.chance(0.5):
        scene.ridge(horizon + 0.08, 0.35, (104, 112, 124), scene.between(0.3, 0.6))
    foliage: tuple[Colour, ...] = (
        (44, 84, 46),
        (74, 112, 46),
        (176, 98, 36),
        (198, 154, 50),
        (58, 84, 92),
        (150, 160, 164),
        (124, 62, 44),
    )
    main, other = (foliage[i] for i in scene.rng.choice(len(foliage), 2, replace=False))
    mixed = scene.between(0, 0.35)
    conifers = scene.between(0, 1) ** 0.5
    scene.ground(horizon + 0.12, scene.land())
    rows = int(scene.rng.integers(3, 6))
    for row in range(rows):
        near = (row + 1) / rows
        base = horizon + 0.12 + (0.98 - horizon) * near**1.4 * scene.between(0.75, 1)
        height = 0.16 + 0.5 * near**1.3 * scene.between(0.75, 1.15)
        haze = 0.6 * (1 - near) ** 1.2
        step = height * scene.between(0.22, 0.42)
        x = scene.between(-0.1, 0.05)
        while x < 1.1:
            colour = scene.vary(other if scene.chance(mixed) else main, 22)
            colour = _rgb(np.array(colour) * (1 - haze) + _floats(scene.horizon) * haze)
            tall = height * scene.between(0.7, 1.15)
            root = base + scene.between(-0.015, 0.03)
            (_conifer if scene.chance(conifers) else _leafy)(scene, x, root, tall, colour)
            x += step * scene.between(0.5, 1.5)


def _conifer(scene: _Scene, x: float, base: float, height: float, colour: Colour) -> None:
    scene.line([(x, base), (x, base - 0.3 * height)], (74, 56, 42), height * 0.05)
    tiers = 6
    for tier in range(tiers):
        low = base - height * (0.1 + 0.8 * tier / tiers)
        top = low - height * 0.27
        wide = height * 0.24 * (1 - 0.78 * tier / tiers) * scene.between(0.85, 1.15)
        lit, dark = 1.12, 0.7
        left, right = (lit, dark) if scene.sun_side < 0 else (dark, lit)
        scene.polygon([(x, top), (x - wide, low), (x, low - 0.03 * height)], colour, left * scene.between(0.9, 1.1))
        scene.polygon([(x, top), (x + wide, low), (x, low - 0.03 * height)], colour, right * scene.between(0.9, 1.1))


def _leafy(scene: _Scene, x: float, base: float, height: float, colour: Colour) -> None:
    bark: Colour = (196, 190, 180) if scene.chance(0.2) else (84, 66, 50)
    scene.line([(x, base), (x + 0.02 * scene.sun_side, base - 0.6 * height)], bark, height * 0.06)
    blobs = 34
    spread = np.clip(scene.rng.normal(0, 0.55, (blobs, 2)), -1, 1) * (0.21 * height, 0.22 * height)
    for dx, dy in spread[np.argsort(-spread[:, 1])].tolist():
        light = 0.92 - 1.1 * dy / height + 0.7 * dx * scene.sun_side / height + scene.between(-0.12, 0.12)
        scene.disc(x + dx, base - 0.66 * height + dy, height * scene.between(0.05, 0.1), colour, light)


def _house(scene: _Scene) -> None:
    """A house seen from a corner: gable front, long side, roof, windows, door, chimney, and a garden."""
    ground = scene.between(0.66, 0.82)
    scene.sky(ground)
    if scene.chance(0.6):
        scene.ridge(ground, 0.25, (96, 116, 84), scene.between(0.25, 0.6))
    scene.ground(ground - 0.04, scene.land())
    for _ in range(scene.rng.integers(0, 4)):
        kind = _conifer if scene.chance(0.4) else _leafy
        kind(scene, scene.between(0, 1), ground, scene.between(0.25, 0.5), scene.vary((78, 104, 54), 30))
    wall, roof, trim = (
        scene.paint(),
        scene.vary((132, 72, 56) if scene.chance(0.5) else (84, 84, 92), 30),
        scene.paint(),
    )
    wall = _rgb(np.array(wall) * 0.55 + 105)
    front, side = scene.between(0.2, 0.32), scene.between(0.2, 0.42)
    left = scene.between(0.06, max(0.07, 0.92 - front - side))
    base, storeys = ground + scene.between(0.02, 0.1), int(scene.rng.choice((1, 1, 2)))
    height = (0.17 + 0.03 * scene.between(0, 1)) * (1 if storeys == 1 else 1.75)
    rise = scene.between(0.12, 0.22)
    tilt = scene.between(0.0, 0.05)
    corner, right = left + front, left + front + side
    eaves = base - height
    lit, dim = (1.08, 0.78) if scene.chance(0.5) else (0.8, 1.06)
    if scene.chance(0.6):
        chimney = corner + side * scene.between(0.2, 0.7)
        scene.polygon(_box(chimney, eaves - rise - 0.06, 0.05, rise), (138, 84, 70), dim)
    scene.polygon([(left, base - tilt / 2), (corner, base), (corner, eaves), (left, eaves + tilt / 3)], wall, lit)
    gable = (left + front / 2, eaves - rise)
    scene.polygon([(left, eaves + tilt / 3), (corner, eaves), gable], wall, lit)
    scene.polygon([(corner, base), (right, base - tilt), (right, eaves + tilt / 2), (corner, eaves)], wall, dim)
    over = 0.02
    far = (gable[0] + side, gable[1] + tilt)
    roof_face = [(gable[0], gable[1]), far, (right + over, eaves + tilt / 2 + over), (corner + over, eaves + over)]
    stencil, pen = scene.mask()
    pen.polygon(scene.points(roof_face), fill=255)
    courses = 0.92 + 0.16 * (np.floor(scene.y * scene.between(50, 80)) % 2) + 0.1 * scene.noise((20, 20), 2)
    scene.fill(stencil, scene.shade(roof, courses))
    verge = [(left - over, eaves + tilt / 3 + over), gable, (corner + over, eaves + over)]
    scene.line(verge, trim if scene.chance(0.5) else (236, 234, 228), 0.016)
    panes: Colour = (250, 214, 130) if scene.chance(0.3) else scene.vary((70, 92, 116), 20)
    frame: Colour = (240, 238, 232) if scene.chance(0.75) else trim
    rows = [eaves + 0.06 + 0.145 * row for row in range(storeys)]
    for row, top in enumerate(rows):
        count = max(2, round(side / 0.12))
        for number in range(count):
            x = corner + side * (number + 0.5) / count - 0.026
            _window(scene, x, top - tilt * (number + 0.5) / count * 0.6, 0.052, 0.075, panes, frame, dim)
        for x in (left + 0.2 * front, left + 0.8 * front):
            if row < storeys - 1 or x > left + front / 2:
                _window(scene, x - 0.024, top, 0.048, 0.075, panes, frame, lit)
    if scene.chance(0.5):
        _window(scene, gable[0] - 0.02, eaves - 0.45 * rise, 0.04, 0.05, panes, frame, lit)
    scene.polygon(_box(left + 0.22 * front, base - 0.135 - tilt / 3, 0.065, 0.13), trim, lit)
    if scene.chance(0.35):
        _fence(scene, base + 0.05)


def _box(x: float, y: float, width: float, height: float) -> list[Point]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _window(
    scene: _Scene, x: float, y: float, width: float, height: float, pane: Colour, frame: Colour, light: float
) -> None:
    scene.polygon(_box(x - 0.008, y - 0.008, width + 0.016, height + 0.016), frame, light)
    scene.polygon(_box(x, y, width, height), pane, 1.0)
    scene.line([(x + width / 2, y), (x + width / 2, y + height)], frame, 0.007, light)
    scene.line([(x, y + height * 0.45), (x + width, y + height * 0.45)], frame, 0.007, light)


def _fence(scene: _Scene, y: float) -> None:
    colour = scene.vary((226, 222, 212) if scene.chance(0.6) else (120, 92, 66), 14)
    for x in np.arange(-0.02, 1.02, 0.045):
        scene.polygon([(x, y + 0.1), (x, y), (x + 0.011, y - 0.015), (x + 0.022, y), (x + 0.022, y + 0.1)], colour)
    for dy in (0.025, 0.07):
        scene.line([(0, y + dy), (1, y + dy)], colour, 0.013, 0.92)


def _sea(scene: _Scene) -> None:
    """Waves to a straight horizon; a sail, a headland, surf on a beach or the sun's glitter may be there."""
    horizon = scene.between(0.25, 0.6)
    scene.sky(horizon)
    if scene.chance(0.4):
        stencil = (scene.y > horizon - 0.12 * np.clip(scene.noise((1, 2), 4)[0] + scene.between(-0.3, 0.3), 0, 1)) & (
            scene.y < horizon
        )
        seen = scene.shade((96, 100, 92), 0.8) * 0.5 + _floats(scene.horizon) * 0.5
        scene.fill(stencil.astype(np.float32), seen.astype(np.float32))
    waters: tuple[Colour, ...] = ((24, 84, 132), (38, 120, 142), (52, 78, 92), (96, 108, 112), (30, 58, 96))
    deep = _floats(scene.vary(waters[scene.rng.integers(len(waters))], 14))
    depth = np.clip((scene.y - horizon) / (1 - horizon), 0, 1)
    # Wave length grows towards the viewer as one over the distance.
    far = 1 / (depth + 0.06)
    warp = scene.noise((5, 3), 3)
    crest = np.sin(far * scene.between(5, 10) + 5 * warp + scene.x * scene.between(-3, 3))
    chop = np.sin(far * scene.between(14, 24) + 9 * warp + scene.x * scene.between(-8, 8))
    ripple = scene.noise((40, 10), 2)
    swell = (0.55 * crest + 0.3 * chop + 0.5 * ripple) * (0.15 + 0.85 * depth) * scene.between(0.6, 1.2)
    reflected = (0.55 * (1 - depth) ** 2 + 0.12)[..., None]
    colours = deep * (1 - reflected) + _floats(scene.horizon) * reflected
    colours = colours * (1 + 0.34 * swell)[..., None]
    foam = np.clip((swell - scene.between(0.45, 0.9)) * 4, 0, 0.8)[..., None]
    colours = colours * (1 - foam) + 235 * scene.sun * foam
    if scene.chance(0.4):
        width = 0.05 + 0.25 * depth
        lane = np.exp(-(((scene.x - scene.between(0.2, 0.8)) / width) ** 2)) * (ripple + 0.5 * crest > 0.15)
        colours = colours + (lane * scene.between(60, 150))[..., None] * scene.sun
    scene.fill((scene.y >= horizon).astype(np.float32), colours.astype(np.float32))
    if scene.chance(0.45):
        shore = scene.between(0.78, 0.95) + 0.07 * warp + scene.between(-0.15, 0.15) * (scene.x - 0.5)
        sand = scene.shade(scene.vary((206, 178, 132), 22), 0.9 + 0.12 * scene.noise((40, 40), 2))
        surf = np.clip(1 - np.abs(scene.y - shore) / 0.028 + 0.7 * scene.noise((30, 30), 2), 0, 1)
        scene.fill((scene.y > shore).astype(np.float32), sand)
        scene.fill(surf, scene.shade((244, 246, 246), 1.0))
    for _ in range(int(scene.rng.choice((0, 0, 1, 1, 2)))):
        _sailboat(scene, scene.between(0.12, 0.88), horizon + scene.between(0.01, 0.16), scene.between(0.1, 0.3))


def _sailboat(scene: _Scene, x: float, water: float, height: float) -> None:
    lean = scene.between(-0.08, 0.08) * height
    top, boom = water - height, water - 0.17 * height
    sail = scene.vary((242, 240, 232), 10) if scene.chance(0.7) else scene.paint()
    mast = (x + lean, top)
    scene.polygon([mast, (x + 0.03 * height, boom), (x + 0.42 * height, boom)], sail, 1.0)
    scene.polygon([mast, (x - 0.03 * height, boom), (x - 0.3 * height, boom)], sail, 0.82)
    scene.line([(x, water), mast], (70, 58, 50), 0.02 * height)
    hull = [(-0.36, -0.12), (0.42, -0.12), (0.3, 0.02), (-0.26, 0.02)]
    scene.polygon([(x + a * height, water + b * height) for a, b in hull], scene.paint(), 0.8)


def _sunflower(scene: _Scene) -> None:
    """One to three flower heads of pointed rays around a seeded disc, before blurred greenery, field or sky."""
    background = scene.rng.integers(3)
    scene.sky(scene.between(0.5, 1.2))
    if background == 0:
        leaves = scene.shade(scene.vary((70, 104, 46), 30), 0.75 + 0.5 * scene.noise((5, 5), 3))
        scene.fill(None, leaves)
    elif background == 1:
        scene.ground(scene.between(0.35, 0.65), scene.vary((86, 116, 50), 30), 0.45)
    blurred = scene.chance(0.7)
    for _ in range(scene.rng.integers(0, 6) if background else 3):
        _flower(scene, scene.between(0, 1), scene.between(0.35, 1), scene.between(0.04, 0.1), False)
    if blurred:
        scene.image = scene.image.filter(ImageFilter.GaussianBlur(scene.side * scene.between(0.01, 0.03)))
    count = int(scene.rng.choice((1, 1, 1, 2)))
    for number in range(count):
        radius = scene.between(0.24, 0.42) if number == count - 1 else scene.between(0.12, 0.18)
        x = scene.between(0.32, 0.68) if number == count - 1 else scene.between(0.1, 0.9)
        _flower(scene, x, scene.between(0.3, 0.6), radius, True)


def _flower(scene: _Scene, x: float, y: float, radius: float, stem: bool) -> None:
    green = scene.vary((76, 116, 46), 24)
    if stem:
        foot = x + scene.between(-0.12, 0.12)
        scene.line([(x, y), ((x + foot) / 2 + 0.02, (y + 1.05) / 2), (foot, 1.05)], green, 0.09 * radius + 0.01, 0.85)
        for side in (-1, 1):
            if scene.chance(0.75):
                _leaf(scene, (x + foot) / 2, scene.between(0.72, 0.95), side * scene.between(0.18, 0.34), green)
    petals: tuple[Colour, ...] = ((246, 190, 34), (250, 208, 60), (232, 146, 30), (172, 66, 36), (248, 228, 150))
    petal = scene.vary(petals[int(scene.rng.choice(5, p=(0.3, 0.25, 0.17, 0.14, 0.14)))], 14)
    core = scene.between(0.36, 0.5) * radius
    squash, turn = scene.between(0.72, 1.0), scene.between(0, math.pi)
    count = int(scene.rng.integers(16, 27))

    def place(r: Any, angle: Any) -> tuple[Any, Any]:
        """Polar coordinates on the tilted flower head."""
        u, v = r * np.cos(angle), r * np.sin(angle) * squash
        return x + u * math.cos(turn) - v * math.sin(turn), y + u * math.sin(turn) + v * math.cos(turn)

    for layer, light in ((0, 0.72), (1, 1.0)):
        angles = (np.arange(count) + 0.5 * layer) * 2 * math.pi / count + scene.rng.normal(0, 0.07, count)
        tips = radius * scene.rng.uniform(0.86, 1.05, count)
        wide = 2.1 / count * scene.rng.uniform(0.85, 1.2, count)
        belly, still = 0.55 * tips + 0.3 * core, np.zeros(count)
        radii = np.stack([0.8 * core + still, belly, tips, belly])
        outlines = np.stack(place(radii, angles + np.stack([still, wide, 0.1 * wide, -wide])), axis=2)
        veins = np.stack(place(np.stack([0.9 * core + still, 0.85 * tips]), angles), axis=2)
        shine = light * (0.93 + 0.12 * np.cos(angles + turn) * scene.sun_side + scene.rng.uniform(-0.1, 0.1, count))
        for each in range(count):
            scene.polygon(outlines[:, each], petal, shine[each])
            scene.line(veins[:, each], petal, 0.02 * radius, 0.84 * shine[each])
    seeds = scene.vary((92, 58, 30) if scene.chance(0.75) else (116, 120, 52), 18)
    ring = np.linspace(0, 2 * math.pi, 40)
    scene.polygon(np.stack(place(core, ring), axis=1), seeds, 0.7)
    number = np.arange(1, 140 if stem else 40)
    spiral = core * 0.97 * np.sqrt(number / len(number))
    px, py = place(spiral, number * math.radians(137.508))
    size = 0.62 * core / math.sqrt(len(number))
    lights = 0.6 + 0.8 * (spiral / core) ** 2 + scene.rng.normal(0, 0.12, len(number))
    for cx, cy, light in zip(px.tolist(), py.tolist(), lights.tolist(), strict=True):
        scene.disc(cx, cy, size, seeds, light)


def _leaf(scene: _Scene, x: float, y: float, length: float, colour: Colour) -> None:
    rise = scene.between(-0.12, 0.06)
    tip = (x + length, y + rise)
    middle = (x + 0.45 * length, y + 0.5 * rise)
    scene.polygon([(x, y), (middle[0], middle[1] - 0.3 * abs(length)), tip], colour, 1.0)
    scene.polygon([(x, y), (middle[0], middle[1] + 0.28 * abs(length)), tip], colour, 0.76)


CLASSES: dict[str, Callable[[_Scene], None]] = {
    "balloon": _balloon,
    "forest": _forest,
    "house": _house,
    "sea": _sea,
    "sunflower": _sunflower,
}
