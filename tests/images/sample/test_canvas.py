import numpy as np
import pytest

from pueprotect.images.sample.canvas import Scene, rgb


def scene(side: int = 60, seed: int = 0) -> Scene:
    return Scene(np.random.default_rng(seed), side)


def test_shapes_land_where_unit_coordinates_say() -> None:
    drawn = scene()
    drawn.sun_rgb = (1.0, 1.0, 1.0)
    drawn.polygon([(0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (0.5, 0.5)], (200, 100, 50))
    drawn.disc(0.25, 0.75, 0.1, (10, 20, 30), 1.0)
    pixels = np.asarray(drawn.image)
    assert pixels[15, 45].tolist() == [200, 100, 50]
    assert pixels[45, 15].tolist() == [10, 20, 30]
    assert pixels[15, 15].tolist() == pixels[45, 45].tolist() == [0, 0, 0]
    assert 0.9 < (pixels[..., 0] == 200).sum() / (60 * 60 / 4) < 1.1
    assert 0.8 < (pixels[..., 0] == 10).sum() / (np.pi * 6**2) < 1.2


def test_a_flat_colour_is_lit_as_a_shaded_one() -> None:
    drawn = scene()
    lit = drawn.shade((120, 80, 40), 0.5)
    assert lit.tolist() == pytest.approx([120 * drawn.sun[0] / 2, 80 * drawn.sun[1] / 2, 40 * drawn.sun[2] / 2])
    assert drawn.ink((120, 80, 40), 0.5) == tuple(int(value) for value in lit)


def test_a_stencil_covers_what_it_marks_and_nothing_else() -> None:
    drawn = scene()
    drawn.fill(None, np.full(3, 40, np.float32))
    drawn.fill((drawn.x > 0.5).astype(np.float32), np.array((300, -5, 90), np.float32))
    pixels = np.asarray(drawn.image)
    assert (pixels[:, :30] == 40).all()
    assert (pixels[:, 30:] == (255, 0, 90)).all(), "clipped to what a pixel can hold"
    assert (drawn.x[0, 0], drawn.x[0, -1]) == pytest.approx((0.5 / 60, 59.5 / 60))
    assert np.array_equal(drawn.y, drawn.x.T)


@pytest.mark.parametrize("cells", [(2, 2), (12, 3)])
def test_noise_is_smooth_and_within_its_range(cells: tuple[int, int]) -> None:
    drawn = scene(96)
    field = drawn.noise(cells, octaves=2)
    assert field.shape == (96, 96)
    assert -1 <= field.min() < -0.2
    assert 0.2 < field.max() <= 1
    assert np.abs(np.diff(field, axis=1)).mean() < 0.2 * field.std()
    assert not np.array_equal(field, drawn.noise(cells, octaves=2)), "every field is another one"


def test_a_developed_scene_has_the_wanted_size_and_some_grain() -> None:
    drawn = scene(120)
    drawn.fill(None, np.full(3, 128, np.float32))
    image = drawn.develop(40)
    pixels = np.asarray(image).astype(float)
    assert (image.mode, image.size) == ("RGB", (40, 40))
    assert 90 < pixels.mean() < 165
    local = np.diff(pixels, axis=1)
    assert 0.3 < local.std() < 15, "grain of the sensor, and no more"
    again = scene(120)
    again.fill(None, np.full(3, 128, np.float32))
    assert np.array_equal(np.asarray(again.develop(40)), np.asarray(image)), "a function of the seed"


def test_colours_stay_within_their_range() -> None:
    assert rgb(np.array([-4.0, 12.5, 300.0])) == (0.0, 12.5, 255.0)
    drawn = scene()
    assert all(0 <= value <= 255 for _ in range(200) for value in drawn.vary((250, 5, 128), 60))
