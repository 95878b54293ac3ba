import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, Release, protected, release_all, tree, unix
from PIL import Image

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
