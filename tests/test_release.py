import json
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, Release, tree, write_photos
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.decode import decode_rgb
from pueprotect.images.overlay import lay
from pueprotect.learning.data import Labelled
from pueprotect.learning.device import choose_device
from pueprotect.protect import presets
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods import self_check as self_check_module
from pueprotect.protect.methods.base import Mode
from pueprotect.protect.methods.self_check import SelfCheck, self_check
from pueprotect.protect.options import Options
from pueprotect.protect.pipeline import protect_folder
from pueprotect.protect.preflight import check_places, refuse_released
from pueprotect.protect.presets import PRESETS
from pueprotect.protect.report import Report
from pueprotect.protect.writer import SSIM_SAMPLE
from pueprotect.release.digests import sha256_of
from pueprotect.release.vault import Vault
from pueprotect.runtime import Silent

SMALL = Options(preset="quick", rounds=1, size=16, release_anyway=True, workers=2)


def options(**wanted: Any) -> Options:
    return Options(**({name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__} | wanted))


def protected(src: Path, out: Path, **wanted: Any) -> Report:
    return protect_folder(src, out, options=options(**wanted), device=choose_device("cpu"))


def manifest(vault: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (vault / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "wanted",
    [{}, {"mode": "sample-wise", "rounds": 2}, {"method": "emn"}, {"method": "hardened", "rounds": None}],
    ids=str,
)
def test_the_same_seed_gives_the_same_bytes(wanted: Mapping[str, Any], photos: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        protected(photos, tmp_path / name, **(dict(wanted) if name == "one" else dict(wanted) | {"workers": 3}))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    for name in ("delta.safetensors", "surrogate.safetensors", "manifest.jsonl"):
        assert (tmp_path / "one.vault" / name).read_bytes() == (tmp_path / "two.vault" / name).read_bytes()


def test_another_seed_gives_other_noise(release: Release, tmp_path: Path) -> None:
    protected(release.src, tmp_path / "out", seed=1)
    assert tree(tmp_path / "out").keys() == tree(release.out).keys()
    assert tree(tmp_path / "out") != tree(release.out)


def test_the_release_holds_the_images_and_nothing_else(release: Release) -> None:
    assert tree(release.out).keys() == tree(release.src).keys()
    for path in release.out.rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.info == {}


def test_every_file_keeps_to_the_budget_as_read_back(release: Release) -> None:
    largest = 0
    for row in manifest(release.vault):
        before = decode_rgb(release.src / row["source_path"]).astype(int)
        gap = np.abs(decode_rgb(release.out / row["path"]).astype(int) - before).max()
        assert 0 < gap <= 8, "protected, within 8 levels"
        assert gap == row["linf"]
        largest = max(largest, gap)
    assert release.outcome.data["realised"]["linf_max"] == largest


@pytest.mark.parametrize("epsilon", [1, 4])
def test_a_smaller_budget_is_kept(epsilon: int, photos: Path, tmp_path: Path) -> None:
    report = protected(photos, tmp_path / "out", epsilon=epsilon)
    assert report.result["realised"]["linf_max"] <= epsilon
    assert report.result["epsilon"] == epsilon / 255


def test_jpeg_rounding_beyond_the_budget_is_said(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4, suffix=".jpg")
    kept = protected(src, tmp_path / "kept")
    assert kept.result["realised"]["linf_max"] > 8, "else this test needs other pictures"
    assert any("--format png" in warning for warning in kept.warnings)
    png = protected(src, tmp_path / "png", file_format="png")
    assert png.result["realised"]["linf_max"] <= 8
    assert png.warnings == ()
    assert {path.suffix for path in (tmp_path / "png").rglob("*.*")} == {".png"}


def test_files_that_are_not_images_are_named_and_left_out(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4)
    (src / "cat/notes.txt").write_text("private")
    report = protected(src, tmp_path / "out")
    assert any("cat/notes.txt" in warning for warning in report.warnings)
    assert not list((tmp_path / "out").rglob("*.txt"))


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_the_holdout_is_never_seen_in_training(
    mode: Mode, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Labelled] = []
    checked: list[Labelled] = []
    made, check = protect.Optimizer.__post_init__, self_check

    def spy(self: protect.Optimizer) -> None:
        seen.append(self.data)
        made(self)

    def frames(data: Labelled) -> torch.Tensor:
        return data.frames(torch.arange(len(data)))

    def spy_check(shown: Labelled, holdout: Labelled, *rest: Any, **named: Any) -> SelfCheck:
        gap = (frames(shown).short() - frames(seen[0]).short()).abs()
        assert 0 < int(gap.max()) <= 8, "the training images and their noise"
        checked.append(holdout)
        return check(shown, holdout, *rest, **named)

    monkeypatch.setattr(protect.Optimizer, "__post_init__", spy)
    monkeypatch.setattr(self_check_module, "self_check", spy_check)
    monkeypatch.setattr(self_check_module, "SELF_CHECK_MARGIN", 1.0)
    protected(photos, tmp_path / "out", mode=mode, rounds=2)

    def pictures(data: Labelled) -> set[bytes]:
        return {image.numpy().tobytes() for image in frames(data)}

    def originals(split: str) -> set[bytes]:
        rows = [row for row in manifest(tmp_path / "out.vault") if row["split"] == split]
        files = [Image.open(photos / row["source_path"]).convert("RGB") for row in rows]
        resized = [image.resize((16, 16), Image.Resampling.LANCZOS, reducing_gap=3.0) for image in files]
        return {np.asarray(image).tobytes() for image in resized}

    assert pictures(seen[0]) == originals("train")
    assert [pictures(data) for data in checked] == [originals("holdout")]
    assert len(originals("train")) == 48
    assert len(originals("holdout")) == 12


def test_the_holdout_is_stratified_and_its_files_are_protected_too(release: Release) -> None:
    rows = manifest(release.vault)
    for name in CLASSES:
        splits = [row["split"] for row in rows if row["class"] == name]
        assert (splits.count("train"), splits.count("holdout")) == (16, 4)
    assert all(row["released_sha256"] != row["source_sha256"] for row in rows)


def test_sample_wise_noise_belongs_to_its_own_image(photos: Path, tmp_path: Path) -> None:
    protected(photos, tmp_path / "out", mode="sample-wise", rounds=3, file_format="png")
    store = Vault(tmp_path / "out.vault")
    delta = store.read_tensors("delta.safetensors")["delta"]
    assert delta.shape == (60, 16, 16, 3)
    for number, row in enumerate(store.read_manifest()):
        before = decode_rgb(photos / row.source_path).astype(int)
        noise = decode_rgb(tmp_path / "out" / row.path).astype(int) - before
        assert np.array_equal(noise, lay(before.astype(np.uint8), delta[number], 8).astype(int) - before)


def test_the_vault_is_private(release: Release) -> None:
    assert stat.S_IMODE(release.vault.stat().st_mode) == 0o700
    files = [path for path in release.vault.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_an_existing_empty_vault_folder_becomes_private(photos: Path, tmp_path: Path) -> None:
    vault = tmp_path / "secret"
    vault.mkdir(mode=0o755)
    protect_folder(photos, tmp_path / "out", vault=vault, options=SMALL, device=choose_device("cpu"))
    assert stat.S_IMODE(vault.stat().st_mode) == 0o700


def test_the_vault_holds_what_the_contract_says(release: Release) -> None:
    assert {path.name for path in release.vault.iterdir()} == {
        "run.json", "manifest.jsonl", "delta.safetensors", "surrogate.safetensors",
    }  # fmt: skip
    run = json.loads((release.vault / "run.json").read_text())
    assert set(run) >= {
        "schema_version",
        "settings",
        "seed",
        "environment",
        "classes",
        "split",
        "timings",
        "manifest_sha256",
    }
    assert run["classes"] == list(CLASSES)
    assert run["manifest_sha256"] == sha256_of(release.vault / "manifest.jsonl")
    assert set(run["settings"]) >= {"method", "mode", "epsilon", "sigma", "rounds", "preset", "holdout", "file_format"}
    assert run["settings"]["rounds"] == 1
    assert run["settings"]["surrogate"] == "resnet8", "what auto chose"
    assert set(run["environment"]) >= {"torch", "torchvision", "python", "device"}
    assert run["data_digest"] == release.outcome.data["data_digest"]

    rows = manifest(release.vault)
    assert len(rows) == 60
    for row in rows:
        assert set(row) == {
            "path", "class", "split", "source_path", "source_sha256", "released_sha256", "linf", "psnr", "ssim",
        }  # fmt: skip
        assert row["source_sha256"] == sha256_of(release.src / row["source_path"])
        assert row["released_sha256"] == sha256_of(release.out / row["path"])
        assert row["psnr"] > 25
        assert 0.5 < row["ssim"] < 1

    delta = Vault(release.vault).read_tensors("delta.safetensors")["delta"]
    assert (delta.shape, delta.dtype) == ((3, 16, 16, 3), np.int8)
    assert np.abs(delta).max() <= 8


def test_similarity_is_measured_on_a_sample(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pueprotect.protect.writer.SSIM_SAMPLE", 7)
    protected(photos, tmp_path / "out")
    rows = manifest(tmp_path / "out.vault")
    assert sum(row["ssim"] is not None for row in rows) == 7 < SSIM_SAMPLE
    assert all(row["psnr"] is not None for row in rows)


def test_a_draft_made_for_other_labels_is_not_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for name, shift in (("first", 0), ("second", 1)):
        rows = [f"{path},{'ab'[(number + shift * (number % 3)) % 2]}" for number, path in enumerate(paths)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.setattr(self_check_module, "SELF_CHECK_MARGIN", -1.0)
    weak = protected(photos, tmp_path / "out", labels=tmp_path / "first.csv", release_anyway=False)
    assert not weak.released
    protected(photos, tmp_path / "out", labels=tmp_path / "second.csv", resume=True)
    protected(photos, tmp_path / "fresh", labels=tmp_path / "second.csv")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_failed_rename_leaves_no_sealed_vault(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith("-partial"):
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="busy"):
        protected(photos, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out.vault", ".out.pueprotect-partial"}
    assert not Vault(tmp_path / "out.vault").is_sealed
    monkeypatch.undo()
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    assert protected(photos, tmp_path / "out", resume=True).released


def test_threads_that_the_pool_forgot_write_nothing_after_an_interruption(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[ThreadPoolExecutor] = []

    class Forgetful(ThreadPoolExecutor):
        def __exit__(self, *_: object) -> None:
            pools.append(self)
            self.shutdown(wait=False)

    class Impatient(Silent):
        label = ""

        def start(self, label: str, total: int) -> None:
            self.label = label

        def advance(self, parts: int = 1, note: str = "") -> None:
            if self.label == "write":
                raise KeyboardInterrupt

    monkeypatch.setattr("pueprotect.protect.writer.ThreadPoolExecutor", Forgetful)
    with pytest.raises(KeyboardInterrupt):
        protect_folder(photos, tmp_path / "out", options=SMALL, device=choose_device("cpu"), progress=Impatient())
    before = tree(tmp_path / ".out.pueprotect-partial")
    for pool in pools:
        pool.shutdown(wait=True)
    assert tree(tmp_path / ".out.pueprotect-partial") == before
    assert len(before) < 60


def test_a_folder_that_the_user_cannot_write_is_refused_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pueprotect.protect.preflight.os.access", lambda path, _mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="not writable"):
        check_places(photos, tmp_path / "out", tmp_path / "out.vault")


def test_a_linked_out_is_released_where_it_points(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    protected(photos, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "real").rglob("*.png"))) == 60


def test_released_files_are_known_by_their_digests(release: Release, photos: Path) -> None:
    digests = {"a.png": sha256_of(release.out / "cat/000.png"), "b.png": "0" * 64}
    with pytest.raises(InputError, match=r"a\.png"):
        refuse_released(photos, digests, (release.vault,))
    refuse_released(photos, {"b.png": "0" * 64}, (release.vault, photos))


def test_presets_grow() -> None:
    quick, standard, strong = PRESETS["quick"], PRESETS["standard"], PRESETS["strong"]
    assert quick.rounds <= standard.rounds <= strong.rounds
    assert quick.check_epochs <= standard.check_epochs <= strong.check_epochs


@pytest.mark.parametrize(
    "wrong", [{"preset": "huge"}, {"size": 8}, {"holdout": 0.0}, {"holdout": float("nan")}, {"workers": -1}], ids=str
)
def test_options_are_checked_where_they_are_made(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
        Options(**wrong)


def test_small_sets_are_passed_over_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "FULL_SIZE", 4000)
    standard = PRESETS["standard"]
    assert standard.for_images(4000, 32) == standard.for_images(50_000, 48) == standard
    assert standard.for_images(1000, 32).rounds == 4 * standard.rounds
    assert standard.for_images(10, 32).rounds == 10 * standard.rounds


def test_images_that_are_shown_at_many_scales_take_twice_the_rounds() -> None:
    for name, preset in PRESETS.items():
        small, large = preset.for_images(4000, 48), preset.for_images(4000, 64)
        assert (large.rounds, large.extra_rounds) == (2 * small.rounds, 2 * small.extra_rounds), name
        assert (large.draws, large.check_epochs) == (small.draws, small.check_epochs), name
