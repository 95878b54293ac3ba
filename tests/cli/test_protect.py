import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    AUDIT,
    KEY,
    TINY,
    UNKEYED,
    Command,
    Release,
    files_of,
    refused,
    run_command,
    tree,
    unix,
    write_photos,
)  # fmt: skip
from PIL import Image

from pueprotect.cli import protect as protect_command
from pueprotect.errors import ImageError
from pueprotect.images import encode
from pueprotect.protect.methods import self_check as self_check_module
from pueprotect.protect.noise import ATTEMPTS
from pueprotect.protect.presets import PRESETS


def test_protect_prints_the_documented_json(release: Release) -> None:
    data = release.outcome.data
    assert set(data) >= {
        "schema_version", "images", "classes", "train_images", "holdout_images", "method", "mode", "epsilon",
        "realised", "surrogate", "self_check", "seconds", "vault", "data_digest",
    }  # fmt: skip
    assert (data["images"], data["classes"], data["train_images"], data["holdout_images"]) == (60, 3, 48, 12)
    assert (data["method"], data["mode"], data["epsilon"]) == ("pue", "class-wise", pytest.approx(8 / 255))
    assert data["class_counts"] == {"cat": 20, "dog": 20, "owl": 20}
    assert set(data["realised"]) == {"linf_max", "psnr_mean", "ssim_mean"}
    assert 0 < data["realised"]["linf_max"] <= 8
    assert set(data["surrogate"]) == {"name", "size", "parameters", "train_accuracy_protected"}
    assert set(data["self_check"]) >= {"arch", "epochs", "accuracy", "chance", "passed"}
    assert set(data["seconds"]) == {"read", "optimise", "write", "check", "total"}
    assert data["vault"] == str(release.vault)
    assert data["data_digest"].startswith("sha256:")


def test_protect_shows_a_table_within_80_columns(photos: Path, tmp_path: Path, command: Command) -> None:
    done = command("protect", photos, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("surrogate", "60 in 3 classes", "cat 20, dog 20, owl 20", "L-inf", "self-check", "vault"):
        assert word in done.stdout
    assert f"pueprotect certify {tmp_path / 'out'}" in done.stderr


STAGES = ["read originals", "look at the originals", "optimise noise", "write", "self-check on the released files"]


def _missing(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [root / "none", "--out", root / "out"], ("none", "no such folder")


def _a_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "file").write_bytes(b"")
    return [root / "file", "--out", root / "out"], ("file", "is a file")


def _empty(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "src").mkdir()
    return [root / "src", "--out", root / "out"], (str(root / "src"), "no images")


def _no_classes(root: Path) -> tuple[list[object], tuple[str, ...]]:
    Image.new("RGB", (8, 8)).save(write_photos(root / "src", 3) / "loose.png")
    return [root / "src", "--out", root / "out"], ("loose.png", "--labels", "path,label")


def _one_class(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    shutil.rmtree(src / "cat")
    shutil.rmtree(src / "dog")
    return [src, "--out", root / "out"], ("'owl'", "at least two")


def _small_class(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    for name in ("000.png", "001.png"):
        (src / "dog" / name).unlink()
    return [src, "--out", root / "out"], ("'dog'", "at least two")


def _full_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "out").mkdir()
    (root / "out/mine.txt").write_text("precious")
    return [write_photos(root / "src", 3), "--out", root / "out"], ("--out", "not empty", "--overwrite")


def _strangers_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    write_photos(root / "out", 2, seed=5)
    return [write_photos(root / "src", 3), "--out", root / "out", "--overwrite"], ("--out", "--overwrite leaves it")


def _out_in_src(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "src", 3), "--out", root / "src/out"], ("--out", "inside each other")


def _src_in_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "out/src", 3), "--out", root / "out"], ("--out", "inside each other")


def _vault_in_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "out/v"], (
        "--vault",
        "released with",
    )


def _vault_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "v").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "v"], ("--vault", "is a file")


def _strangers_vault(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "v").mkdir()
    (root / "v/letter.txt").write_text("private")
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "v"], ("--vault", "letter.txt")


def _out_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "out").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "out"], ("--out", "is a file")


def _out_below_a_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "file").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "file/out"], ("--out", "file is a file")


def _unreadable(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    whole = (src / "cat/001.png").read_bytes()
    (src / "cat/001.png").write_bytes(whole[: len(whole) // 2])
    return [src, "--out", root / "out"], ("cat/001.png",)


PROTECT_REFUSES = [
    _missing, _a_file, _empty, _no_classes, _one_class, _small_class, _full_out, _strangers_out, _out_in_src,
    _src_in_out, _vault_in_out, _vault_file, _strangers_vault, _out_file, _out_below_a_file, _unreadable,
]  # fmt: skip


@pytest.mark.parametrize("case", PROTECT_REFUSES, ids=lambda case: case.__name__.strip("_"))
def test_protect_refuses_folders(
    case: Callable[[Path], tuple[list[object], tuple[str, ...]]], tmp_path: Path, command: Command
) -> None:
    arguments, parts = case(tmp_path)
    before = tree(tmp_path)
    refused(command("protect", *arguments, *TINY), 2, *parts)
    assert tree(tmp_path) == before, "something was written"


def test_a_release_is_not_protected_again(release: Release, tmp_path: Path, command: Command) -> None:
    refused(command("protect", release.out, "--out", tmp_path / "out", *TINY), 2, "is itself a release")
    mine = release.copy(tmp_path)
    renamed = mine.out.rename(tmp_path / "renamed")
    before = tree(tmp_path)
    refused(command("protect", renamed, "--out", tmp_path / "new", *TINY), 2, str(renamed), "release already")
    assert tree(tmp_path) == before


def test_unknown_choices_are_usage_errors(photos: Path, tmp_path: Path, command: Command) -> None:
    for wrong in (
        ["--method", "magic"],
        ["--mode", "pixel-wise"],
        ["--preset", "huge"],
        ["--format", "gif"],
        ["--nope"],
    ):
        done = command("protect", photos, "--out", tmp_path / "out", *wrong)
        assert done.code == 2
        assert wrong[0] in done.stderr
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("label", STAGES)
def test_an_interrupted_protect_leaves_nothing_and_resumes_to_the_same_bytes(
    label: str,
    release: Release,
    tmp_path: Path,
    command: Command,
    interrupted_during: Callable[[str], None],
    forbid_optimising: Callable[[], None],
) -> None:
    arguments = ("protect", release.src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    interrupted_during(label)
    done = command(*arguments)
    assert done.code == 130
    assert done.stdout == ""
    assert "--resume" in done.stderr
    kept = {".out.pueprotect-partial"} if label.startswith(("write", "self-check")) else set()
    assert set(path.name for path in tmp_path.iterdir()) <= {"out.vault", *kept}
    assert not (tmp_path / "out.vault/run.json").exists()
    if kept and release.outcome.data["self_check"]["passed"]:
        forbid_optimising()
    resumed = command(*arguments, "--resume")
    assert resumed.code == 0, resumed.stderr
    assert files_of(tmp_path / "out") == files_of(release.out)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}
    assert (tmp_path / "out.vault/delta.safetensors").read_bytes() == (release.vault / "delta.safetensors").read_bytes()
    assert resumed.data["data_digest"] == release.outcome.data["data_digest"]


def test_a_draft_of_another_plan_is_not_resumed(
    release: Release, tmp_path: Path, command: Command, interrupted_during: Callable[[str], None]
) -> None:
    arguments = ("protect", release.src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    interrupted_during("write")
    assert command(*arguments, "--seed", 7).code == 130
    assert command(*arguments, "--resume").code == 0
    assert files_of(tmp_path / "out") == files_of(release.out)


def test_a_failed_self_check_releases_nothing(
    photos: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    forbid_optimising: Callable[[], None],
) -> None:
    monkeypatch.setattr(self_check_module, "SELF_CHECK_MARGIN", -0.45)
    arguments = ("protect", photos, "--out", tmp_path / "out", *TINY, "--json")
    weak = command(*arguments)
    assert weak.code == 3
    check = weak.data["self_check"]
    assert check["passed"] is False
    assert len(check["attempts"]) == ATTEMPTS, "it must try further rounds first"
    assert weak.data["rounds"] == 1 + (ATTEMPTS - 1) * PRESETS["quick"].extra_rounds
    assert weak.data["realised"] is None
    assert weak.data["data_digest"] is None
    assert f"{check['accuracy']:.1%}" in weak.stderr
    assert "--release-anyway" in weak.stderr
    assert not (tmp_path / "out").exists()
    assert set(files_of(tmp_path)) == {
        f"out.vault/draft/{name}" for name in ("plan.json", "delta.safetensors", "surrogate.safetensors")
    }
    forbid_optimising()
    assert command(*arguments, "--resume").code == 3
    forced = command(*arguments, "--resume", "--release-anyway")
    assert forced.code == 0
    assert forced.data["self_check"] == check
    assert len(list((tmp_path / "out").rglob("*.png"))) == 60
    assert not (tmp_path / "out.vault/draft").exists()


def test_overwrite_replaces_a_release_and_its_evidence(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    (mine.vault / "audit").mkdir()
    (mine.vault / "audit/standard-resnet8.json").write_text("{}")
    (mine.vault / "certificate.json").write_text("{}")
    arguments = ("protect", mine.src, "--out", mine.out, *TINY, "--release-anyway", "--seed", 3)
    refused(command(*arguments), 2, "--overwrite")
    refused(command(*arguments, "--resume"), 2, "--overwrite")
    assert command(*arguments, "--overwrite").code == 0
    assert files_of(mine.out).keys() == files_of(release.out).keys()
    assert files_of(mine.out) != files_of(release.out)
    assert command("verify", mine.out).code == 0
    assert set(files_of(mine.vault)) == {"run.json", "manifest.jsonl", "delta.safetensors", "surrogate.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}


@pytest.mark.parametrize("failure", [ImageError("disk trouble"), KeyboardInterrupt()])
def test_the_old_release_stays_until_the_new_one_is_complete(
    failure: BaseException, release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    before, vault = files_of(mine.out), files_of(mine.vault)
    write = encode.Encoder.write

    def fail_late(self: encode.Encoder, source: Path, *rest: Any, **options: Any) -> Any:
        if source.name == "015.png":
            raise failure
        return write(self, source, *rest, **options)

    monkeypatch.setattr(encode.Encoder, "write", fail_late)
    done = command("protect", mine.src, "--out", mine.out, *TINY, "--release-anyway", "--seed", 3, "--overwrite")
    assert done.code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert files_of(mine.out) == before
    assert {name: data for name, data in files_of(mine.vault).items() if not name.startswith("draft/")} == vault
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault", ".out.pueprotect-partial"}
    assert command("verify", mine.out).code == 0


@pytest.mark.parametrize("change", ["extra", "changed"])
def test_overwrite_keeps_files_that_it_did_not_release(
    change: str, release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    path = mine.out / ("holiday.jpg" if change == "extra" else "cat/003.png")
    path.write_bytes(b"mine")
    before = tree(tmp_path)
    refused(command("protect", mine.src, "--out", mine.out, *TINY, "--overwrite"), 2, path.name, "leaves it alone")
    assert tree(tmp_path) == before


def test_the_vault_of_another_release_does_not_allow_overwriting(
    release: Release, tmp_path: Path, command: Command
) -> None:
    stranger = write_photos(tmp_path / "album", 2, seed=9)
    mine = release.copy(tmp_path)
    before = tree(tmp_path)
    done = command("protect", mine.src, "--out", stranger, "--vault", mine.vault, *TINY, "--overwrite")
    refused(done, 2, "album", "leaves it alone")
    assert tree(tmp_path) == before


def test_labels_come_from_a_table(tmp_path: Path, command: Command) -> None:
    rng = np.random.default_rng(0)
    src = tmp_path / "src"
    src.mkdir()
    lines = ["path,label"]
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(src / f"{index}.png")
        lines.append(f"{index}.png,{'even' if index % 2 == 0 else 'odd'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    done = command(
        "protect",
        src,
        "--out",
        tmp_path / "out",
        "--labels",
        tmp_path / "labels.csv",
        *TINY,
        "--release-anyway",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.data["classes"] == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 24
    assert run_command("audit", tmp_path / "out", "--attack", "standard", *AUDIT).code == 0


def test_many_classes_are_shown_by_their_first_names_and_extremes() -> None:
    counts = {f"c{number:02d}": 30 - number for number in range(11)}
    assert protect_command._classes(counts) == "c00, c01, c02 ...; 20 (c10) to 30 (c00) images each"


@unix
def test_linked_class_folders_are_protected_on_request(tmp_path: Path, command: Command) -> None:
    pool, src = write_photos(tmp_path / "pool", 4), tmp_path / "view"
    src.mkdir()
    for name in ("cat", "dog"):
        (src / name).symlink_to(pool / name)
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    refused(command(*arguments), 2, "cat is a link to a folder", "--follow-symlinks")
    done = command(*arguments, "--follow-symlinks")
    assert done.code == 0, done.stderr
    assert done.data["class_counts"] == {"cat": 4, "dog": 4}
    assert not (tmp_path / "out/cat").is_symlink()
    assert command("audit", tmp_path / "out", "--attack", "standard", *AUDIT).code == 0
    assert tree(pool) == tree(write_photos(tmp_path / "again", 4)), "the originals are untouched"


def test_the_key_comes_from_the_option_a_file_or_the_environment(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = (*UNKEYED, "--release-anyway", "--json")
    path = tmp_path / "key.txt"
    path.write_text(f"{KEY}\n")
    for name, words in (("option", ("--key", KEY)), ("file", ("--key", f"@{path}")), ("none", ()), ("drawn", ())):
        done = command("protect", src, "--out", tmp_path / name, *quick, *words)
        assert done.code == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
    monkeypatch.setenv("PUEPROTECT_KEY", KEY)
    assert command("protect", src, "--out", tmp_path / "variable", *quick).code == 0
    assert files_of(tmp_path / "option") == files_of(tmp_path / "file") == files_of(tmp_path / "variable")
    assert len({files_of(tmp_path / name)["cat/000.jpg"] for name in ("option", "none", "drawn")}) == 3


def test_a_wrong_key_is_refused_without_repeating_it(src: Path, tmp_path: Path, command: Command) -> None:
    done = command("protect", src, "--out", tmp_path / "out", *UNKEYED, "--key", KEY[:-1])
    refused(done, 2, "--key is not 32 hexadecimal digits")
    assert KEY[:-1] not in done.stderr
    refused(command("protect", src, "--out", tmp_path / "out", *UNKEYED, "--key", "@none"), 2, "none cannot be read")
    assert not (tmp_path / "out").exists()
