"""A killed or failing `protect` and what comes after it: the same bytes, nothing lost, nothing left over."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Command, Outcome, photo, put, tree, write_photos

from pueprotect.errors import ImageError, InputError, VaultError
from pueprotect.images import encode
from pueprotect.learning.device import choose_device
from pueprotect.protect import preflight as places
from pueprotect.protect import presets
from pueprotect.protect.draft import building, locked, sibling
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.options import Options
from pueprotect.protect.pipeline import protect_folder
from pueprotect.release.digests import verify
from pueprotect.release.vault import Vault

SMALL = Options(preset="quick", rounds=1, size=16, release_anyway=True, workers=2)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of Unix")


def wanted(**changed: Any) -> Options:
    return Options(**({name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__} | changed))


def run(src: Path, out: Path, **changed: Any) -> None:
    assert protect_folder(src, out, options=wanted(**changed), device=choose_device("cpu")).released


def sentence(done: Outcome) -> str:
    """The message of a failure, which is the last line and the only one of its kind."""
    found = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert found == done.stderr.splitlines()[-1:]
    return found[0]


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
            run(src, out, **changed)
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


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("draft") / "src", per_class=5, suffix=".jpg")


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
        run(src, tmp_path / "earlier/out", seed=7)
    total = run_and_die(src, fresh("whole") / "out", 0, overwrite=earlier)
    assert total > 30
    reference = tmp_path / "whole/out"
    check_whole(tmp_path / "whole", reference)
    # The last changes publish and clean up: more of these.
    moments = [*random.Random(total).sample(range(1, total - 16), 3), *range(total - 15 + earlier, total + 1, 3)]
    for moment in moments:
        place = fresh(str(moment))
        assert run_and_die(src, place / "out", moment, overwrite=earlier) == 0, f"not killed at {moment} of {total}"
        run(src, place / "out", overwrite=earlier, resume=True)
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


def test_finished_files_are_not_written_again(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, done = encode.Encoder.write, list[str]()

    def until_tenth(self: encode.Encoder, source: Path, *rest: Any, **named: Any) -> Any:
        if len(done) == 10:
            raise ImageError("disk trouble")
        done.append(source.name)
        return write(self, source, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(encode.Encoder, "write", until_tenth)
        with pytest.raises(ImageError, match="trouble"):
            run(src, tmp_path / "out", workers=1)
    site = sibling(tmp_path / "out", "partial")
    files = sorted(path for path in site.rglob("*") if path.is_file())
    assert len(files) == 10
    files[0].write_bytes(b"damaged since")
    (site / "stranger.jpg").write_bytes(b"never released")
    again = list[str]()

    def count(self: encode.Encoder, source: Path, *rest: Any, **named: Any) -> Any:
        again.append(source.name)
        return write(self, source, *rest, **named)

    monkeypatch.setattr(encode.Encoder, "write", count)
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    run(src, tmp_path / "out", resume=True)
    assert len(again) == 15 - 9
    monkeypatch.undo()
    monkeypatch.setattr(presets, "FULL_SIZE", 1)
    run(src, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_other_settings_of_writing_begin_anew(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "pueprotect.protect.pipeline.publish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(OSError, match="No space"):
            run(src, tmp_path / "out")
    run(src, tmp_path / "out", resume=True, file_format="png")
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".png"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}


def test_a_finished_release_is_resumed_without_work(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    first, before = command(*arguments), tree(tmp_path)
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    again = command(*arguments, "--resume")
    assert again.code == 0, again.stderr
    assert again.data == first.data
    assert tree(tmp_path) == before
    other = command(*arguments, "--resume", "--seed", 5)
    assert other.code == 2
    assert "--overwrite" in other.stderr
    (tmp_path / "out/cat/000.jpg").unlink()
    assert command(*arguments, "--resume").code == 2


def test_a_run_of_before_is_discarded_without_resume(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "pueprotect.protect.pipeline.publish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(OSError, match="No space"):
            run(src, tmp_path / "out", seed=3)
    run(src, tmp_path / "out")
    run(src, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@unix
def test_a_second_run_on_one_out_or_vault_is_refused(src: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    with building(tmp_path / "out"):
        done = command(*arguments)
        assert done.code == 2
        assert "another run" in done.stderr
        assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == {}
    (tmp_path / "vault").mkdir()
    with locked(tmp_path / "vault", "--vault"):
        done = command(*arguments, "--vault", tmp_path / "vault")
        assert done.code == 2
        assert "--vault" in done.stderr
    assert not (tmp_path / "out").exists()
    assert command(*arguments, "--vault", tmp_path / "vault").code == 0


@unix
def test_a_lock_does_not_outlive_the_folder_it_was_taken_on(tmp_path: Path) -> None:
    with building(tmp_path / "a/b/out") as site:
        (site / "x").write_bytes(b"x")
        site.rename(tmp_path / "a/b/out")
        with building(tmp_path / "a/b/out") as another:
            assert another.is_dir()
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {"out"}
    with building(tmp_path / "new/deep/out"):
        pass
    assert not (tmp_path / "new").exists()


@unix
def test_sigterm_is_an_interruption(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = protect.Optimizer.run

    def terminated(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        optimise(*arguments, **named)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(protect.Optimizer, "run", terminated)
    done = command("protect", src, "--out", tmp_path / "out", *TINY)
    assert done.code == 130
    assert "--resume" in done.stderr
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_ends_with_one_sentence_and_resumes(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == "003.jpg":
            raise OSError(failure, os.strerror(failure))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(encode.os, "replace", fail)
        done = command(*arguments)
    assert done.code == 2
    assert sentence(done).count(os.strerror(failure)) == 1
    assert "003.jpg" in sentence(done)
    assert "--resume" in sentence(done)
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    assert command(*arguments, "--resume").code == 0
    assert len(tree(tmp_path / "out")) == 18


@pytest.mark.parametrize("change", ["vanished", "changed"])
def test_a_source_that_changes_meanwhile_ends_with_one_sentence_and_resumes(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    src = write_photos(tmp_path / "src", per_class=4)
    victim, content = src / "dog/002.png", (src / "dog/002.png").read_bytes()
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    optimise = protect.Optimizer.run

    def meanwhile(*rest: Any, **named: Any) -> None:
        optimise(*rest, **named)
        victim.unlink(missing_ok=True)
        if change == "changed":
            put(victim, photo(seed=5))

    with monkeypatch.context() as patch:
        patch.setattr(protect.Optimizer, "run", meanwhile)
        done = command(*arguments)
    assert done.code == 2
    assert "dog/002.png" in sentence(done)
    assert not (tmp_path / "out").exists()
    victim.write_bytes(content)
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    assert command(*arguments, "--resume").code == 0


def test_the_space_is_estimated_before_the_work(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 15_000))
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--format", "png")
    assert done.code == 2
    assert "--out" in done.stderr
    assert "15 KiB are free" in done.stderr
    assert tree(tmp_path) == {}
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2 * 2**30))
    with pytest.raises(InputError, match=r"3\.0 GiB.*2\.0 GiB"):
        places.check_space(tmp_path, 4 * 2**30, 2**30)
    places.check_space(tmp_path, 4 * 2**30, 2 * 2**30)


def test_the_estimate_is_near_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = write_photos(tmp_path / "src", per_class=5)
    asked = list[float]()
    monkeypatch.setattr("pueprotect.protect.job.check_space", lambda _, needed, there: asked.append(needed))
    run(src, tmp_path / "out")
    written = sum(len(content) for content in tree(tmp_path / "out").values() if content)
    assert written * 0.7 < asked[0] < written * 1.5


def test_a_journal_that_cannot_be_written_is_named(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pueprotect.protect.draft import Journal

    store = Vault.create(tmp_path / "vault")
    (store.path / "draft").mkdir()
    journal = Journal(store, "key", goes_on=False)
    journal.close()
    (store.path / "draft/written.jsonl").write_bytes(b'{"key":"key"}\n{"row":{},"before":1,"after":1}\n{"row')
    again = Journal(store, "key", goes_on=True)
    assert again.finished == {}
    again.close()
    assert [json.loads(line) for line in again.path.read_bytes().splitlines()] == [{"key": "key"}]
    monkeypatch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(VaultError, match=r"written\.jsonl.*No space"):
        Journal(store, "key", goes_on=False)


def test_temporary_files_of_a_killed_process_are_swept(src: Path, tmp_path: Path) -> None:
    vault = tmp_path / "out.vault"
    (vault / "draft").mkdir(parents=True)
    for name in (".0123.tmp", "draft/.4567.tmp"):
        (vault / name).write_bytes(np.zeros(9).tobytes())
    run(src, tmp_path / "out")
    assert not list(vault.rglob("*.tmp"))
