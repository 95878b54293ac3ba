import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import KEY, OTHER_KEY, TINY, Command, Release, protected, put, release_all, tree, unix, write_policy
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images import encode
from pueprotect.images.decode import decode
from pueprotect.protect.writer import Writer
from pueprotect.release.digests import verify
from pueprotect.release.vault import Vault

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")


def run_and_die(src: Path, out: Path, moment: int, **changed: Any) -> int:
    """Run in a process of its own that kills itself before its change number `moment` of the disk; counts them."""
    counter = out.parent / f"{out.name}-count"
    child = os.fork()
    if child == 0:  # pragma: no cover
        count, inside = 0, str(out.parent)

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or event in CHANGES) and str(arguments[0]).startswith(inside):
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(watch)
            release_all(src, out, **changed)
            total, inside = count, "/nowhere"
            counter.write_text(str(total))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return 0
    assert status == 0
    total = int(counter.read_text())
    counter.unlink()
    return total


def check_whole(place: Path, reference: Path) -> None:
    assert tree(place / "out") == tree(reference)
    assert {path.name for path in place.iterdir()} == {"out", "out.vault"}
    store = Vault(place / "out.vault")
    assert {path.name for path in store.path.iterdir()} == {
        "run.json", "manifest.jsonl", "delta.safetensors", "surrogate.safetensors",
    }  # fmt: skip
    assert store.run()["data_digest"]
    assert verify(place / "out", store.read_manifest()).ok


@unix
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "overwrite"])
def test_a_killed_run_resumes_to_the_same_bytes(src: Path, tmp_path: Path, earlier: bool) -> None:
    def fresh(name: str) -> Path:
        place = tmp_path / name
        place.mkdir()
        if earlier:
            shutil.copytree(tmp_path / "earlier/out", place / "out")
            shutil.copytree(tmp_path / "earlier/out.vault", place / "out.vault")
        return place

    if earlier:
        (tmp_path / "earlier").mkdir()
        release_all(src, tmp_path / "earlier/out", seed=7)
    total = run_and_die(src, fresh("whole") / "out", 0, overwrite=earlier)
    assert total > 30
    reference = tmp_path / "whole/out"
    check_whole(tmp_path / "whole", reference)
    # The last changes publish and clean up: more of these.
    moments = [*random.Random(total).sample(range(1, total - 16), 3), *range(total - 15 + earlier, total + 1, 3)]
    for moment in moments:
        place = fresh(str(moment))
        assert run_and_die(src, place / "out", moment, overwrite=earlier) == 0, f"not killed at {moment} of {total}"
        release_all(src, place / "out", overwrite=earlier, resume=True)
        check_whole(place, reference)


@pytest.mark.slow
@unix
def test_twenty_kills_at_random_moments(src: Path, tmp_path: Path) -> None:
    """The command line as users run it, killed by the clock."""
    command = [sys.executable, "-m", "pueprotect", "protect", str(src), *TINY, "--release-anyway", "--out"]
    began = time.monotonic()
    (tmp_path / "whole").mkdir()
    subprocess.run([*command, str(tmp_path / "whole/out")], check=True, capture_output=True)
    length = time.monotonic() - began
    killed = 0
    for number in range(20):
        place = tmp_path / str(number)
        place.mkdir()
        process = subprocess.Popen([*command, str(place / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(length * random.Random(number).uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        subprocess.run([*command, str(place / "out"), "--resume"], check=True, capture_output=True)
        check_whole(place, tmp_path / "whole/out")
    assert killed >= 10


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"mode": "sample-wise", "rounds": 2},
        {"method": "emn"},
        {"method": "hardened", "rounds": None},
        {"method": "lsp", "rounds": None},
    ],
    ids=str,
)
def test_the_same_key_and_seed_give_the_same_bytes(wanted: Mapping[str, Any], photos: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        protected(photos, tmp_path / name, **(dict(wanted) if name == "one" else dict(wanted) | {"workers": 3}))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    for name in ("delta.safetensors", "surrogate.safetensors", "manifest.jsonl"):
        assert (tmp_path / "one.vault" / name).read_bytes() == (tmp_path / "two.vault" / name).read_bytes()


@pytest.mark.parametrize("method", ["pue", "hardened", "lsp"])
def test_another_key_and_no_key_give_other_noise(method: str, photos: Path, tmp_path: Path) -> None:
    made = []
    for number, key in enumerate((KEY, OTHER_KEY, None, None)):
        out = tmp_path / str(number)
        protected(photos, out, method=method, rounds=1 if method == "pue" else None, key=key)
        made.append(tree(out))
    assert all(one.keys() == made[0].keys() for one in made)
    assert not [name for name, content in made[0].items() if content and len({one[name] for one in made}) < 4]


@pytest.mark.parametrize("method", ["hardened", "lsp"])
def test_the_noise_in_closed_form_follows_from_the_key_and_not_from_the_seed(
    method: str, photos: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        protected(photos, tmp_path / str(seed), method=method, rounds=None, seed=seed)
    one, two = (Vault(tmp_path / f"{seed}.vault") for seed in (0, 1))
    assert (one.path / "delta.safetensors").read_bytes() == (two.path / "delta.safetensors").read_bytes()
    assert [row.split for row in one.read_manifest()] != [row.split for row in two.read_manifest()]


def test_the_key_is_in_the_vault_and_nowhere_else(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    store = Vault(mine.vault)
    assert store.run()["settings"]["key"] == KEY
    if sys.platform != "win32":
        assert (mine.vault / "run.json").stat().st_mode & 0o777 == 0o600
    assert KEY not in release.outcome.stdout + release.outcome.stderr
    policy = write_policy(tmp_path, "version: 1\nimages: {min_coverage: 1.0}\n")
    statement = tmp_path / "statement.json"
    done = command("check", mine.out, "--policy", policy, "--attest", statement, "--format", "json")
    assert done.code == 0, done.stderr
    page = tmp_path / "report.html"
    assert command("report", mine.out, "--out", page).code == 0
    assert b"Protection" in page.read_bytes()
    for public in (statement, page, *mine.out.rglob("*.png")):
        assert KEY.encode() not in public.read_bytes()
    assert KEY not in done.stdout + done.stderr
    inside = {path.name for path in mine.vault.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()}
    assert inside == {"run.json"}


def test_an_interrupted_run_goes_on_with_its_own_key(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbid_optimising: Callable[[], None]
) -> None:
    """Without --key; another key starts anew."""
    for name in ("same", "other"):
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "write", lambda *_: (_ for _ in ()).throw(OSError("No space")))
            with pytest.raises(OSError, match="No space"):
                release_all(src, tmp_path / name, key=None)
    drawn = [Vault(tmp_path / f"{name}.vault").read_json("draft/plan.json")["plan"] for name in ("same", "other")]
    assert drawn[0]["settings"]["key"] != drawn[1]["settings"]["key"]
    release_all(src, tmp_path / "other", key=OTHER_KEY, resume=True)
    assert Vault(tmp_path / "other.vault").run()["settings"]["key"] == OTHER_KEY
    release_all(src, tmp_path / "reference", key=OTHER_KEY)
    assert tree(tmp_path / "other") == tree(tmp_path / "reference")
    release_all(src, tmp_path / "again", key=drawn[0]["settings"]["key"])
    forbid_optimising()
    release_all(src, tmp_path / "same", key=None, resume=True)
    assert tree(tmp_path / "same") == tree(tmp_path / "again")
    release_all(src, tmp_path / "same", key=None, resume=True)  # finished: nothing is left to do


@pytest.mark.parametrize("content", ["[]", "{}", '{"plan": 7}', "no JSON"])
def test_a_damaged_draft_is_made_anew(content: str, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", lambda *_: (_ for _ in ()).throw(OSError("No space")))
        with pytest.raises(OSError, match="No space"):
            release_all(src, tmp_path / "out")
    (tmp_path / "out.vault/draft/plan.json").write_text(content)
    release_all(src, tmp_path / "out", resume=True)
    release_all(src, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_the_release_holds_the_images_and_nothing_else(release: Release) -> None:
    assert tree(release.out).keys() == tree(release.src).keys()
    for path in release.out.rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.info == {}


def strength(src: Path, out: Path) -> float:
    """Root mean square of the noise in released files, in levels."""
    changes = [
        decode(path).colours.astype(float) - decode(src / path.relative_to(out)).colours for path in out.rglob("*.png")
    ]
    return float(np.sqrt(np.mean(np.concatenate([change.ravel() for change in changes]) ** 2)))


@pytest.mark.parametrize(("mode", "sides"), [("L", (20, 24)), ("LA", (20, 24)), ("L", (10, 12)), ("RGB", (10, 12))])
def test_files_without_colours_and_small_files_hold_noise_of_full_strength(
    mode: str, sides: tuple[int, int], photos: Path, release: Release, tmp_path: Path
) -> None:
    """Noise was made with colours at the working size, and writing such files averaged most of it away."""
    for path in photos.rglob("*.png"):
        place = tmp_path / "src" / path.relative_to(photos)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize(sides[::-1]).convert(mode).save(place)
    release_all(tmp_path / "src", tmp_path / "out")
    assert strength(tmp_path / "src", tmp_path / "out") > 0.8 * strength(photos, release.out)


def test_a_folder_of_pictures_without_any_class_is_refused(tmp_path: Path) -> None:
    """Such as the folders train and test of a data set: no network learns them, so no self-check would fail."""
    rng = np.random.default_rng(0)
    for number in range(80):
        put(
            tmp_path / "src" / ("one", "two")[number % 2] / f"{number}.png", rng.integers(0, 256, (16, 16, 3), np.uint8)
        )
    with pytest.raises(InputError, match="Nothing can be learnt from these labels"):
        protected(tmp_path / "src", tmp_path / "out", release_anyway=False)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.vault").exists()
    release_all(tmp_path / "src", tmp_path / "out")


def test_the_self_check_reads_the_files_that_are_released(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise that is lost on the way to the disk is noticed, whatever the noise in memory does."""
    monkeypatch.setattr(encode, "lay", lambda pixels, *_: pixels.copy())
    report = protected(photos, tmp_path / "out", release_anyway=False)
    assert not report.released
    assert report.result.self_check.accuracy == report.result.self_check.clean_accuracy
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*")), "no file without noise is left"
