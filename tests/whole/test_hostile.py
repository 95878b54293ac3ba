"""Protects folders with damaged files, odd names and traps."""

import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, Command, photo, put, tree, write_photos
from PIL import Image

from pueprotect.errors import ImageError
from pueprotect.images import decode
from pueprotect.images.encode import Encoder
from pueprotect.release.digests import data_digest, verify
from pueprotect.release.vault import Vault

NOISE = np.random.default_rng(0).integers(-8, 9, (16, 16, 3)).astype(np.int8)


def seeds() -> list[bytes]:
    """Twenty small files: every container and mode, with metadata."""
    found: list[bytes] = []
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    options = {"JPEG": {"exif": exif}, "PNG": {"exif": exif}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}
    modes = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "RGBA", "L", "LA", "P", "I;16"), "WEBP": ("RGB", "RGBA")}
    modes |= {"BMP": ("RGB", "L", "P"), "TIFF": ("RGB", "RGBA", "L", "P", "I;16")}
    import io

    for kind, each in modes.items():
        for mode in each:
            image = Image.fromarray(photo(24, 24))
            if mode == "I;16":
                image = Image.fromarray(photo(24, 24)[..., 0].astype(np.uint16) * 257)
            elif mode != "RGB":
                image = image.quantize(16) if mode == "P" else image.convert(mode)
            buffer = io.BytesIO()
            image.save(buffer, kind, **options[kind])
            found.append(buffer.getvalue())
    for extra in ({"progressive": True}, {"compression": "tiff_lzw"}):
        buffer = io.BytesIO()
        Image.fromarray(photo(24, 24)).save(buffer, "JPEG" if "progressive" in extra else "TIFF", **extra)
        found.append(buffer.getvalue())
    return found


def corrupted(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`content` with bytes flipped, its end cut off, or a piece of another file inserted."""
    kind = chance.randrange(3)
    changed = bytearray(content)
    if kind == 0:
        for _ in range(chance.choice((1, 3, 20))):
            changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
    elif kind == 1:
        del changed[chance.randrange(len(changed)) :]
    else:
        other = chance.choice(others)
        start, length = chance.randrange(len(other)), chance.randrange(1, 200)
        place = chance.randrange(len(changed))
        changed[place : place + chance.choice((0, length))] = other[start : start + length]
    return bytes(changed)


def variants(count: int) -> list[bytes]:
    files, chance = seeds(), random.Random(0)
    assert len(files) == 20
    return [corrupted(files[number % len(files)], files, chance) for number in range(count)]


def fuzzed(tmp_path: Path, command: Command, count: int) -> tuple[int, int]:
    """Protect a folder of damaged files and count those that were released and left out."""
    src = tmp_path / "src"
    for number, content in enumerate(variants(count)):
        folder = src / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}{('.jpg', '.png', '.tif')[number % 3]}").write_bytes(content)
    for name in ("ant", "bee"):
        for number in range(3):
            put(src / name / f"fine{number}.png", photo(24, 24, seed=number))
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    assert command(*arguments).code == 2, "damaged files are refused unless asked otherwise"
    assert not (tmp_path / "out").exists()
    done = command(*arguments, "--skip-unsupported")
    assert done.code == 0, done.stderr[-2000:]
    assert "unexpected" not in done.stderr
    rows = Vault(tmp_path / "out.vault").read_manifest()
    assert verify(tmp_path / "out", rows).ok
    skipped = {entry["path"] for entry in done.data["skipped"]}
    assert skipped.isdisjoint(row.source_path for row in rows)
    assert len(skipped) + len(rows) == count + 6
    assert all(entry["reason"].count("\n") == 0 and entry["path"] in entry["reason"] for entry in done.data["skipped"])
    originals = {content for content in tree(src).values() if content}
    assert originals.isdisjoint(content for content in tree(tmp_path / "out").values() if content)
    return len(rows), len(skipped)


def test_each_damaged_file_is_released_or_reported(tmp_path: Path, command: Command) -> None:
    released, skipped = fuzzed(tmp_path, command, 60)
    assert released > 10
    assert skipped > 10


@pytest.mark.slow
def test_each_of_a_thousand_damaged_files_is_released_or_reported(tmp_path: Path, command: Command) -> None:
    released, skipped = fuzzed(tmp_path, command, 1000)
    assert released > 100
    assert skipped > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_damaged_file_hangs(tmp_path: Path) -> None:
    longest = 0.0
    for number, content in enumerate(variants(1000)):
        source = tmp_path / "a.bin"
        source.write_bytes(content)
        began = time.process_time()
        with suppress(ImageError):
            Encoder(epsilon=8).write(source, tmp_path / f"{number}.out", NOISE)
        longest = max(longest, time.process_time() - began)
    assert longest < 10


ODD = ["line\nbreak.png", "tab\tand\x1b[31mred.png", "quote'\"[bold].png", "é" * 120 + ".png", "back\\slash.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of arbitrary bytes")
def test_odd_names_survive(tmp_path: Path, command: Command) -> None:
    src = tmp_path / "src"
    classes = ["катя и 猫", "dog house", os.fsdecode(b"caf\xe9")]
    for number, name in enumerate(classes):
        for index, odd in enumerate([*ODD, os.fsdecode(b"latin-\xff\xe9.png")]):
            put(src / name / odd, photo(seed=10 * number + index))
    arguments = (src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    done = command("protect", *arguments, "--json")
    assert done.code == 0, done.stderr
    assert tree(tmp_path / "out").keys() == tree(src).keys()
    rows = Vault(tmp_path / "out.vault").read_manifest()
    assert {row.path for row in rows} == {name for name, content in tree(src).items() if content is not None}
    assert {row.class_name for row in rows} == set(classes)
    assert verify(tmp_path / "out", rows).ok
    names = [os.fsencode(row.path) for row in rows]
    summed = subprocess.run([b"sha256sum", b"--", *names], cwd=tmp_path / "out", capture_output=True, check=True)
    ordered = subprocess.run(["sort"], input=summed.stdout, env={"LC_ALL": "C"}, capture_output=True, check=True)
    total = subprocess.run(["sha256sum"], input=ordered.stdout, capture_output=True, check=True).stdout.split()[0]
    assert done.data["data_digest"] == f"sha256:{total.decode()}"
    assert data_digest({row.path: row.released_sha256 for row in rows}) == done.data["data_digest"]
    shown = command("protect", *arguments, "--overwrite")
    assert shown.code == 0
    for text in (shown.stdout, shown.stderr):
        assert "\x1b[31m" not in text
        text.encode()
    assert command("verify", tmp_path / "out").code == 0
    assert command("audit", tmp_path / "out", "--attack", "standard", "--epochs", 1, "--device", "cpu").code == 0


def test_an_error_about_an_odd_name_is_one_line(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 3)
    (src / "cat/bad\n\x1b[2Jname.png").write_bytes(b"no picture")
    done = command("protect", src, "--out", tmp_path / "out", *TINY)
    assert done.code == 2
    assert done.stderr.count("\n") == 1
    assert "\\n" in done.stderr
    assert "\x1b" not in done.stderr
    assert "--skip-unsupported" in done.stderr


def test_classes_may_be_deeper_folders(tmp_path: Path, command: Command) -> None:
    src = tmp_path / "src"
    for year in ("2023", "2024"):
        for name in ("cat", "dog"):
            for number in range(3):
                put(src / year / name / "more" / f"{number}.png", photo(seed=hash((year, name, number)) % 1000))
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    done = command(*arguments, "--label-depth", 2)
    assert done.code == 0, done.stderr
    assert {row.class_name for row in Vault(tmp_path / "out.vault").read_manifest()} == {"cat", "dog"}
    assert tree(tmp_path / "out").keys() == tree(src).keys()
    put(src / "2023/loose.png")
    for depth, word in ((2, "loose.png"), (0, "--label-depth")):
        refused = command(*arguments[:3], tmp_path / "new", *TINY, "--label-depth", depth)
        assert refused.code == 2
        assert word in refused.stderr


def test_one_picture_in_two_classes_is_reported(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    with Image.open(src / "cat/001.png") as image:
        image.save(src / "dog/same.bmp")  # the same pixels in another file
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 0
    assert "1 picture is in two classes, such as cat/001.png and dog/same.bmp" in done.stderr


def test_unusable_files_are_listed_and_left_out_only_on_request(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    (src / "cat/phone.heic").write_bytes(b"ftypheic")
    (src / "cat/empty.jpg").write_bytes(b"")
    whole = (src / "dog/001.png").read_bytes()
    (src / "dog/001.png").write_bytes(whole[: len(whole) // 2])
    Image.new("CMYK", (20, 20)).save(src / "owl/ink.jpg")
    frames = [Image.fromarray(photo(seed=number)) for number in range(2)]
    frames[0].save(src / "owl/moving.webp", save_all=True, append_images=frames[1:])
    put(src / "owl/flat.png", np.dstack([photo(), np.full((20, 28), 7, np.uint8)]))
    with Image.open(src / "owl/000.png") as image:
        image.quantize(8).save(src / "owl/000.png")
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    refused = command(*arguments)
    assert refused.code == 2
    bad = {"cat/phone.heic", "cat/empty.jpg", "dog/001.png", "owl/ink.jpg", "owl/moving.webp"}
    assert all(name in refused.stderr for name in bad)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.vault").exists()
    done = command(*arguments, "--skip-unsupported")
    assert done.code == 0, done.stderr
    assert {entry["path"] for entry in done.data["skipped"]} == bad
    assert all(name in done.stderr for name in bad)
    assert "Images in palette mode that become RGB(A): 1, such as owl/000.png" in done.stderr
    released = {name for name, content in tree(tmp_path / "out").items() if content}
    assert released == {name for name, content in tree(src).items() if content is not None} - bad
    assert done.data["images"] == len(released) == 12
    run = json.loads((tmp_path / "out.vault/run.json").read_text())
    assert len(run["skipped"]) == 5


def test_a_class_without_usable_files_is_left_out(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    for path in (src / "owl").iterdir():
        path.write_bytes(b"")
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--skip-unsupported", "--json")
    assert done.code == 0, done.stderr
    assert done.data["classes"] == 2


def test_a_decompression_bomb_is_refused_by_name(tmp_path: Path, command: Command) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    src = write_photos(tmp_path / "src", 3)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    (src / "cat/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""))
    done = command("protect", src, "--out", tmp_path / "out", *TINY)
    assert done.code == 2
    assert "cat/bomb.png has too many pixels" in done.stderr


def test_a_large_photograph_is_not_refused_as_a_bomb(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = write_photos(tmp_path / "src", 3)
    monkeypatch.setattr(decode.Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns from here, and refuses twice as much
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="git and links of Unix")
def test_a_vault_inside_a_git_work_tree_is_reported(tmp_path: Path, command: Command) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "site")], check=True)
    src = write_photos(tmp_path / "src", 3)
    arguments = ("protect", src, "--out", tmp_path / "site/photos", *TINY, "--release-anyway")
    done = command(*arguments)
    assert done.code == 0
    assert "git work tree" in done.stderr
    assert ".gitignore" in done.stderr
    (tmp_path / "site/.gitignore").write_text("*.vault/\n")
    again = command(*arguments, "--overwrite")
    assert again.code == 0
    assert "git work tree" not in again.stderr
