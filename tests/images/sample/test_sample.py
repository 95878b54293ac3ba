import numpy as np
import pytest
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.decode import decode_rgb
from pueprotect.images.folders import scan
from pueprotect.images.sample import CLASSES, draw, write_sample
from pueprotect.images.working_copies import load


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_sample_is_a_labelled_folder_of_small_jpegs(tmp_path):
    assert write_sample(tmp_path / "s", per_class=3, size=48) == 15
    folder = scan(tmp_path / "s")
    assert folder.classes == tuple(CLASSES) == ("balloon", "forest", "house", "sea", "sunflower")
    assert np.bincount(folder.labels).tolist() == [3] * 5
    assert folder.ignored == ()
    for entry in folder.entries:
        with Image.open(folder.path_of(entry)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))


def test_pictures_depend_on_seed_class_and_index_alone(tmp_path):
    write_sample(tmp_path / "few", per_class=2, size=32, seed=5)
    write_sample(tmp_path / "more", per_class=4, size=32, seed=5)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few == {name: more[name] for name in few}
    assert len(set(more.values())) == 20
    write_sample(tmp_path / "other", per_class=2, size=32, seed=6)
    assert not set(contents(tmp_path / "other").values()) & set(few.values())
    assert np.array_equal(draw("sea", 1, size=32, seed=5), draw("sea", 1, size=32, seed=5))


@pytest.mark.parametrize("size", [32, 63, 512])
def test_every_class_draws_at_every_size(size):
    for name in CLASSES:
        picture = draw(name, 1, size=size)
        assert (picture.size, picture.mode) == ((size, size), "RGB")
        pixels = np.asarray(picture)
        assert pixels.std() > 8
        assert np.mean((pixels == 0) | (pixels == 255)) < 0.5


def test_a_larger_picture_shows_the_same_scene():
    for name in CLASSES:
        small = np.asarray(draw(name, 0, size=64), dtype=float)
        large = np.asarray(draw(name, 0, size=128).resize((64, 64), Image.Resampling.BOX), dtype=float)
        strange = np.asarray(draw(name, 1, size=64), dtype=float)
        assert np.abs(small - large).mean() < 0.6 * np.abs(small - strange).mean()


def features(images):
    """Sizes of the low spatial frequencies of the brightness: shape and texture, no colour."""
    grey = images.mean(axis=3)
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) / grey.std(axis=(1, 2), keepdims=True)
    half = grey.reshape(len(grey), 16, 2, 16, 2)
    spectrum = np.abs(np.fft.fft2(grey))[:, :12, :12].reshape(len(grey), -1)
    return np.hstack([np.log1p(spectrum), half.std(axis=(2, 4)).reshape(len(grey), -1)])


def nearest_mean_accuracy(train, train_labels, test, test_labels):
    spread = train.std(axis=0) + 1e-6
    means = np.stack([train[train_labels == label].mean(axis=0) for label in range(5)])
    distance = (((test[:, None] - means[None]) / spread) ** 2).sum(axis=2)
    return np.mean(distance.argmin(axis=1) == test_labels)


def test_shape_and_not_mean_colour_tells_the_classes_apart(tmp_path):
    write_sample(tmp_path / "s", per_class=40, size=32)
    folder = scan(tmp_path / "s")
    images, labels = load(folder, 32).astype(np.float64), folder.labels
    train = np.arange(len(labels)) % 2 == 0
    colour, shape = images.mean(axis=(1, 2)), features(images)
    by_colour = nearest_mean_accuracy(colour[train], labels[train], colour[~train], labels[~train])
    by_shape = nearest_mean_accuracy(shape[train], labels[train], shape[~train], labels[~train])
    assert by_shape > 0.4
    assert by_colour < 0.35


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_sample(tmp_path / "empty", per_class=1, size=32) == 5
    with pytest.raises(InputError, match="not an empty folder"):
        write_sample(tmp_path / "empty", per_class=1, size=32)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not an empty folder"):
        write_sample(tmp_path / "file")
    assert decode_rgb(tmp_path / "empty" / "sea" / "0000.jpg").shape == (32, 32, 3)


@pytest.mark.parametrize("options", [{"size": 31}, {"size": 513}, {"per_class": 0}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, options):
    with pytest.raises(InputError):
        write_sample(tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()
