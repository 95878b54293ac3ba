"""The canvas of a drawn scene: one light, unit coordinates, and what a camera adds at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

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


class Scene:
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
        """A random number between two."""
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def vary(self, colour: Colour, spread: float) -> Colour:
        """A colour near this one."""
        shift = self.rng.normal(0, spread / 2) + self.rng.normal(0, spread / 2, 3)
        return rgb(np.array(colour) + shift)

    def paint(self) -> Colour:
        """A random strong colour."""
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
        """Unit coordinates as pixels."""
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
        """A flat shape."""
        self.pen().polygon(self.points(points), fill=self.ink(colour, light))

    def disc(self, x: float, y: float, radius: float, colour: Colour, light: float) -> None:
        """A flat circle."""
        left, top, wide = (x - radius) * self.side, (y - radius) * self.side, 2 * radius * self.side
        self.pen().ellipse((left, top, left + wide, top + wide), fill=self.ink(colour, light))

    def line(self, points: Any, colour: Colour, width: float, light: float = 1.0) -> None:
        """A line, `width` as a share of the side."""
        thick = max(1, round(width * self.side))
        self.pen().line(self.points(points), self.ink(colour, light), thick, joint="curve")

    def sky(self, horizon: float) -> None:
        """Fill everything with sky that is lightest at `horizon`, perhaps cloudy, perhaps with the sun in it."""
        depth = np.clip(self.y / max(horizon, 0.05), 0, 1)[:, :1, None] ** self.between(0.7, 1.4)
        colours = floats(self.zenith) * (1 - depth) + floats(self.horizon) * depth
        if self.chance(0.75):
            cover = self.noise((int(self.rng.integers(2, 6)), 2), 4) + self.between(-0.45, 0.2)
            cloud = np.clip(cover * self.between(1.5, 4), 0, 0.9)[..., None]
            white = floats(self.horizon) * 0.35 + 165 * self.sun
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
        seen = self.shade(colour, 0.8 + 0.15 * self.noise((6, 6), 2)) * (1 - haze) + floats(self.horizon) * haze
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


def floats(colour: Colour) -> Array:
    """A colour to calculate with: (3,) float32."""
    return np.array(colour, dtype=np.float32)


def rgb(values: npt.NDArray[np.floating[Any]]) -> Colour:
    """A colour from three values, clipped to 0..255."""
    r, g, b = np.clip(values, 0, 255)
    return float(r), float(g), float(b)
