"""The five kinds of scenes, each drawn on a canvas by one function of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ImageFilter

from pueprotect.images.sample.canvas import Colour, Point, Scene, floats, rgb


def _balloon(scene: Scene) -> None:
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


def _one_balloon(scene: Scene, x: float, y: float, radius: float) -> None:
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


def _forest(scene: Scene) -> None:
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
            colour = rgb(np.array(colour) * (1 - haze) + floats(scene.horizon) * haze)
            tall = height * scene.between(0.7, 1.15)
            root = base + scene.between(-0.015, 0.03)
            (_conifer if scene.chance(conifers) else _leafy)(scene, x, root, tall, colour)
            x += step * scene.between(0.5, 1.5)


def _conifer(scene: Scene, x: float, base: float, height: float, colour: Colour) -> None:
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


def _leafy(scene: Scene, x: float, base: float, height: float, colour: Colour) -> None:
    bark: Colour = (196, 190, 180) if scene.chance(0.2) else (84, 66, 50)
    scene.line([(x, base), (x + 0.02 * scene.sun_side, base - 0.6 * height)], bark, height * 0.06)
    blobs = 34
    spread = np.clip(scene.rng.normal(0, 0.55, (blobs, 2)), -1, 1) * (0.21 * height, 0.22 * height)
    for dx, dy in spread[np.argsort(-spread[:, 1])].tolist():
        light = 0.92 - 1.1 * dy / height + 0.7 * dx * scene.sun_side / height + scene.between(-0.12, 0.12)
        scene.disc(x + dx, base - 0.66 * height + dy, height * scene.between(0.05, 0.1), colour, light)


def _house(scene: Scene) -> None:
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
    wall = rgb(np.array(wall) * 0.55 + 105)
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
    scene: Scene, x: float, y: float, width: float, height: float, pane: Colour, frame: Colour, light: float
) -> None:
    scene.polygon(_box(x - 0.008, y - 0.008, width + 0.016, height + 0.016), frame, light)
    scene.polygon(_box(x, y, width, height), pane, 1.0)
    scene.line([(x + width / 2, y), (x + width / 2, y + height)], frame, 0.007, light)
    scene.line([(x, y + height * 0.45), (x + width, y + height * 0.45)], frame, 0.007, light)


def _fence(scene: Scene, y: float) -> None:
    colour = scene.vary((226, 222, 212) if scene.chance(0.6) else (120, 92, 66), 14)
    for x in np.arange(-0.02, 1.02, 0.045):
        scene.polygon([(x, y + 0.1), (x, y), (x + 0.011, y - 0.015), (x + 0.022, y), (x + 0.022, y + 0.1)], colour)
    for dy in (0.025, 0.07):
        scene.line([(0, y + dy), (1, y + dy)], colour, 0.013, 0.92)


def _sea(scene: Scene) -> None:
    """Waves to a straight horizon; a sail, a headland, surf on a beach or the sun's glitter may be there."""
    horizon = scene.between(0.25, 0.6)
    scene.sky(horizon)
    if scene.chance(0.4):
        stencil = (scene.y > horizon - 0.12 * np.clip(scene.noise((1, 2), 4)[0] + scene.between(-0.3, 0.3), 0, 1)) & (
            scene.y < horizon
        )
        seen = scene.shade((96, 100, 92), 0.8) * 0.5 + floats(scene.horizon) * 0.5
        scene.fill(stencil.astype(np.float32), seen.astype(np.float32))
    waters: tuple[Colour, ...] = ((24, 84, 132), (38, 120, 142), (52, 78, 92), (96, 108, 112), (30, 58, 96))
    deep = floats(scene.vary(waters[scene.rng.integers(len(waters))], 14))
    depth = np.clip((scene.y - horizon) / (1 - horizon), 0, 1)
    # Wave length grows towards the viewer as one over the distance.
    far = 1 / (depth + 0.06)
    warp = scene.noise((5, 3), 3)
    crest = np.sin(far * scene.between(5, 10) + 5 * warp + scene.x * scene.between(-3, 3))
    chop = np.sin(far * scene.between(14, 24) + 9 * warp + scene.x * scene.between(-8, 8))
    ripple = scene.noise((40, 10), 2)
    swell = (0.55 * crest + 0.3 * chop + 0.5 * ripple) * (0.15 + 0.85 * depth) * scene.between(0.6, 1.2)
    reflected = (0.55 * (1 - depth) ** 2 + 0.12)[..., None]
    colours = deep * (1 - reflected) + floats(scene.horizon) * reflected
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


def _sailboat(scene: Scene, x: float, water: float, height: float) -> None:
    lean = scene.between(-0.08, 0.08) * height
    top, boom = water - height, water - 0.17 * height
    sail = scene.vary((242, 240, 232), 10) if scene.chance(0.7) else scene.paint()
    mast = (x + lean, top)
    scene.polygon([mast, (x + 0.03 * height, boom), (x + 0.42 * height, boom)], sail, 1.0)
    scene.polygon([mast, (x - 0.03 * height, boom), (x - 0.3 * height, boom)], sail, 0.82)
    scene.line([(x, water), mast], (70, 58, 50), 0.02 * height)
    hull = [(-0.36, -0.12), (0.42, -0.12), (0.3, 0.02), (-0.26, 0.02)]
    scene.polygon([(x + a * height, water + b * height) for a, b in hull], scene.paint(), 0.8)


def _sunflower(scene: Scene) -> None:
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


def _flower(scene: Scene, x: float, y: float, radius: float, stem: bool) -> None:
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


def _leaf(scene: Scene, x: float, y: float, length: float, colour: Colour) -> None:
    rise = scene.between(-0.12, 0.06)
    tip = (x + length, y + rise)
    middle = (x + 0.45 * length, y + 0.5 * rise)
    scene.polygon([(x, y), (middle[0], middle[1] - 0.3 * abs(length)), tip], colour, 1.0)
    scene.polygon([(x, y), (middle[0], middle[1] + 0.28 * abs(length)), tip], colour, 0.76)


CLASSES: dict[str, Callable[[Scene], None]] = {
    "balloon": _balloon,
    "forest": _forest,
    "house": _house,
    "sea": _sea,
    "sunflower": _sunflower,
}
