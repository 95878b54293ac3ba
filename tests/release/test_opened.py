import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CLASSES, Release, protected, tree, unix, write_photos
from PIL import Image

from pueprotect.errors import InputError, StaleDataError, VaultError
from pueprotect.images.decode import decode_rgb
from pueprotect.learning.device import Machine
from pueprotect.learning.distributed import Group
from pueprotect.release.digests import data_digest
from pueprotect.release.opened import Reader, open_release
from pueprotect.release.vault import Vault


def movable(release: Release, place: Path) -> Release:
    """A copy whose originals may be changed too."""
    mine = release.copy(place)
    src = shutil.copytree(release.src, place / "src")
    store = Vault(mine.vault)
    store.seal(store.run() | {"source": str(src)})
    return Release(src, mine.out, mine.vault, mine.outcome)


def rows(release: Release, split: str) -> list[str]:
    return [row.path for row in Vault(release.vault).read_manifest() if row.split == split]


def test_the_attacker_gets_the_released_training_files_and_is_measured_on_clean_originals(release: Release) -> None:
    opened = open_release(release.out)
    assert opened.own
    assert opened.classes == CLASSES
    assert opened.size == 16
    train, held = rows(release, "train"), rows(release, "holdout")
    assert (len(opened.released), len(opened.test)) == (len(train), len(held)) == (48, 12)
    assert opened.chance == pytest.approx(1 / 3)
    assert opened.originals is not None
    assert torch.equal(opened.originals.labels, opened.released.labels)
    gap = (opened.originals.images.short() - opened.released.images.short()).abs()
    assert int(gap.max()) > 0
    assert opened.digest == release.outcome.data["data_digest"]
    names = [row.path for row in Vault(release.vault).read_manifest()]
    assert opened.places is not None
    assert [names[place] for place in opened.places] == train
    assert names == sorted(names), "whoever has the folder knows these places"


def test_pixels_are_those_on_disk(tmp_path: Path) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 2), write_photos(tmp_path / "test", 2, seed=4)
    for folder in (foreign, test):
        for path in folder.rglob("*.png"):  # square, so that nothing is resampled
            Image.fromarray(decode_rgb(path)[:20, :20]).save(path)
    opened = open_release(foreign, test=test, size=20)
    expected = [decode_rgb(foreign / name / f"{index:03d}.png") for name in CLASSES for index in range(2)]
    assert np.array_equal(opened.released.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert opened.released.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert opened.default_arch == "resnet8"
    assert opened.originals is None
    assert opened.places is None
    assert opened.online_surrogate() is None


def test_opening_writes_nothing(tmp_path: Path, release: Release) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 2), write_photos(tmp_path / "test", 2, seed=4)
    before, vault = tree(tmp_path), tree(release.vault)
    opened = open_release(foreign, test=test)
    open_release(release.out)
    assert tree(tmp_path) == before
    assert tree(release.vault) == vault
    opened.results.write("certificate.json", {"a": 1})
    assert (tmp_path / "foreign.vault/certificate.json").is_file()


def test_given_test_images_replace_the_holdout_and_the_attacker_trains_on_all(release: Release, tmp_path: Path) -> None:
    test = write_photos(tmp_path / "test", 3, seed=2)
    shutil.rmtree(test / "cat")
    opened = open_release(release.out, test=test)
    assert len(opened.released) == 60
    assert opened.test.labels.tolist() == [1, 1, 1, 2, 2, 2], "labels are the release's, not the test folder's"
    assert opened.chance == 0.5


@pytest.mark.parametrize("state", ["gone", "changed"])
@pytest.mark.parametrize("split", ["train", "holdout"])
def test_originals_are_checked_by_digest(state: str, split: str, release: Release, tmp_path: Path) -> None:
    mine = movable(release, tmp_path)
    path = mine.src / rows(release, split)[2]
    path.unlink() if state == "gone" else path.write_bytes((mine.src / rows(release, split)[3]).read_bytes())
    name = path.relative_to(mine.src).as_posix()
    if split == "holdout":
        with pytest.raises(StaleDataError, match=name):
            open_release(mine.out)
    else:
        opened = open_release(mine.out)
        with pytest.raises(StaleDataError, match=name):
            _ = opened.originals


@pytest.mark.parametrize("kind", ["missing", "extra", "changed"])
def test_released_files_are_checked_first(kind: str, release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    path = mine.out / ("cat/more.png" if kind == "extra" else "cat/000.png")
    path.unlink() if kind == "missing" else path.write_bytes(b"x")
    with pytest.raises(StaleDataError, match=rf"1 {kind} \({path.relative_to(mine.out).as_posix()}\)"):
        open_release(mine.out)


def test_the_online_surrogate_is_the_one_in_the_vault(release: Release, tmp_path: Path) -> None:
    model = open_release(release.out).online_surrogate()
    assert model is not None
    stored = Vault(release.vault).read_tensors("surrogate.safetensors")
    state = model.state_dict()
    assert state.keys() == stored.keys()
    assert all(np.array_equal(state[name].numpy(), value) for name, value in stored.items())

    mine = release.copy(tmp_path)
    Vault(mine.vault).write_tensors("surrogate.safetensors", {"other": np.zeros(3, np.float32)})
    with pytest.raises(VaultError, match="resnet8"):
        open_release(mine.out).online_surrogate()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({}, "--test"), ({"vault": "none"}, "--vault"), ({"vault": "file"}, "--vault"), ({"test": "none"}, "none")],
)
def test_folders_that_cannot_be_opened_are_refused(arguments: dict[str, str], part: str, tmp_path: Path) -> None:
    foreign = write_photos(tmp_path / "foreign", 2)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=part):
        open_release(foreign, **{name: tmp_path / value for name, value in arguments.items()})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gone"):
        open_release(tmp_path / "gone")


def test_a_foreign_digest_depends_on_paths_and_bytes(tmp_path: Path) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 2), write_photos(tmp_path / "test", 2, seed=4)
    first = open_release(foreign, test=test).digest
    assert first == open_release(foreign, test=test).digest
    (foreign / "cat/000.png").rename(foreign / "cat/009.png")
    assert open_release(foreign, test=test).digest != first
    assert first.startswith("sha256:")
    assert first != data_digest({})


def squares(folder: Path) -> Path:
    """The pictures of a folder cut to 20 x 20 pixels, so that nothing is resampled at that size."""
    for path in folder.rglob("*.png"):
        Image.fromarray(decode_rgb(path)[:20, :20]).save(path)
    return folder


def test_test_images_that_are_training_files_are_refused(release: Release, tmp_path: Path) -> None:
    """Whether they are originals or released files, of the training split or the holdout, under whatever name."""
    for kind, root in (("source", release.src), ("released", release.out)):
        for split in ("train", "holdout"):
            test = write_photos(tmp_path / f"{kind}-{split}", 3, seed=2)
            taken = rows(release, split)[1]
            shutil.copyfile(root / taken, test / "dog/009.png")
            with pytest.raises(InputError, match=rf"1 image is in the training set too \(dog/009.png equals {taken}\)"):
                open_release(release.out, test=test)
    with pytest.raises(InputError, match="60 images are in the training set too"):
        open_release(release.out, test=release.src)


def test_the_same_pixels_in_another_file_are_refused(release: Release, tmp_path: Path) -> None:
    test = write_photos(tmp_path / "test", 3, seed=2)
    taken = rows(release, "train")[1]
    Image.fromarray(decode_rgb(release.src / taken)).save(test / "dog/009.bmp")
    with pytest.raises(InputError, match=f"dog/009.bmp equals {taken}"):
        open_release(release.out, test=test)
    foreign, test = write_photos(tmp_path / "foreign", 2), write_photos(tmp_path / "clean", 2, seed=4)
    Image.fromarray(decode_rgb(foreign / "cat/001.png")).save(test / "owl/000.bmp")
    with pytest.raises(InputError, match=r"owl/000.bmp equals cat/001.png"):
        open_release(foreign, test=test)


def test_pictures_within_the_budget_of_a_training_image_are_counted(release: Release, tmp_path: Path) -> None:
    assert open_release(release.out).overlap is None
    foreign, test = squares(write_photos(tmp_path / "foreign", 2)), squares(write_photos(tmp_path / "test", 2, seed=4))
    assert open_release(foreign, test=test, size=20).overlap is None
    for index in range(2):  # the tool's noise lies on two of the test pictures
        noise = np.random.default_rng(index).choice([-8, 8], (20, 20, 3))
        noisy = (decode_rgb(test / f"owl/{index:03d}.png").astype(int) + noise).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(foreign / f"owl/01{index}.png")
    overlap = open_release(foreign, test=test, size=20).overlap
    assert overlap is not None
    assert overlap.images == 2
    assert overlap.first == [("owl/000.png", "owl/010.png"), ("owl/001.png", "owl/011.png")]


def test_a_changed_test_image_is_counted_where_the_originals_are_gone(release: Release, tmp_path: Path) -> None:
    mine = movable(release, tmp_path)
    test = write_photos(tmp_path / "test", 3, seed=2)
    Image.fromarray(decode_rgb(mine.src / "cat/003.png")).save(test / "cat/003.bmp")
    shutil.rmtree(mine.src)
    overlap = open_release(mine.out, test=test).overlap
    assert overlap is not None
    assert overlap.first == [("cat/003.bmp", "cat/003.png")]


def test_a_picture_that_is_twice_in_the_source_is_counted_when_it_was_split(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", 10)
    for number in range(0, 10, 2):
        shutil.copyfile(src / f"cat/{number:03d}.png", src / f"cat/{number + 1:03d}.png")
    protected(src, tmp_path / "out")
    held = {row.path for row in Vault(tmp_path / "out.vault").read_manifest() if row.split == "holdout"}
    split = {
        number for number in range(10) if f"cat/{number:03d}.png" in held and f"cat/{number ^ 1:03d}.png" not in held
    }
    assert split
    overlap = open_release(tmp_path / "out").overlap
    assert overlap is not None
    assert overlap.images == len(split)


@unix
def test_the_vault_is_held_by_the_first_process_of_a_run(release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    first, second = open_release(mine.out), open_release(mine.out)
    with first.in_use():
        with pytest.raises(InputError, match=f"--vault {mine.vault} is in use by another run"), second.in_use():
            pass
        second.reader = Reader(Machine(group=Group(1, 2)))
        with second.in_use():
            pass
    with open_release(mine.out).in_use():
        pass
