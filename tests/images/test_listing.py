import os
import shutil

import pytest
from helpers import noise_levels, photo, put, two_classes, unix
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.decode import decode
from pueprotect.images.encode import Encoder, released_names
from pueprotect.images.folders import scan
from pueprotect.images.listing import format_of, list_folder

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


@pytest.mark.parametrize("kind", [*FORMATS, "GIF"])
def test_the_first_bytes_tell_the_format(tmp_path, kind):
    path = put(tmp_path / "file", format=kind)
    assert format_of(path.read_bytes()[:32]) == kind


def test_bytes_of_no_picture_have_no_format():
    for start in (b"", b"BM", b"BMW is a maker of cars and more, not", b"RIFF\0\0\0\0WAVEfmt ", b"path,label\n"):
        assert format_of(start[:32]) == ""


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["plain", "0001.dat", "v1.2", "photo.gif"])
def test_content_decides_where_the_suffix_does_not(tmp_path, kind, name):
    put(two_classes(tmp_path) / "ant" / name, format=kind)
    folder = scan(tmp_path)
    assert f"ant/{name}" in [entry.path for entry in folder.entries]
    assert (folder.ignored, folder.unsupported) == ((), ())


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.mpo", "a.apng"])
def test_further_suffixes_of_jpeg_and_png(tmp_path, name):
    put(two_classes(tmp_path) / "ant" / name, format="PNG" if "png" in name else "JPEG")
    assert f"ant/{name}" in [entry.path for entry in scan(tmp_path).entries]


def test_files_found_by_content_keep_their_names_and_open(tmp_path):
    root = two_classes(tmp_path / "src")
    for name, kind in {"plain": "JPEG", "v1.2": "PNG", "scan.dat": "TIFF", "a.jfif": "JPEG"}.items():
        path = put(root / "ant" / name, format=kind)
        Encoder(epsilon=8).write(path, tmp_path / "out" / name, noise_levels())
        assert decode(tmp_path / "out" / name).container == kind
    folder = scan(root)
    assert released_names(folder, "keep") == [entry.path for entry in folder.entries]
    assert [name for name in released_names(folder, "png") if "/0" not in name][:4] == [
        "ant/1.png",
        "ant/2.png",
        "ant/a.png",
        "ant/plain.png",
    ]
    assert {"ant/v1.2.png", "ant/scan.dat.png"} <= set(released_names(folder, "png"))


def test_pictures_that_cannot_be_released_are_known_by_content_too(tmp_path):
    root = two_classes(tmp_path)
    put(root / "ant" / "moving", format="GIF")
    put(root / "ant" / "camera.dng", format="TIFF")
    (root / "ant" / "notes.txt").write_text("BM")
    folder = scan(root)
    reasons = dict(folder.unsupported)
    assert set(reasons) == {"ant/moving", "ant/camera.dng"}
    assert "GIF files cannot be released" in reasons["ant/moving"]
    assert "DNG files cannot be released" in reasons["ant/camera.dng"]
    assert folder.ignored == ("ant/notes.txt",)


@unix
def test_files_that_cannot_be_opened_do_not_stop_the_listing(tmp_path):
    root = two_classes(tmp_path)
    os.mkfifo(root / "ant" / "pipe")
    assert scan(root).ignored == ("ant/pipe",)


@pytest.mark.parametrize(
    "name",
    ["@eaDir", ".thumbnails", "$RECYCLE.BIN", "#recycle", "lost+found", "System Volume Information", "__MACOSX"],
)
def test_folders_of_systems_are_left_out_and_named(tmp_path, name):
    root = two_classes(tmp_path)
    put(root / "ant" / name / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    put(root / name / "0.png")
    folder = scan(root)
    assert len(folder.entries) == 6
    assert folder.classes == ("ant", "bee")
    assert folder.hidden == tuple(sorted((f"{name}/", f"ant/{name}/")))
    assert folder.empty == ()


def test_hidden_pictures_are_named_and_other_hidden_files_are_not(tmp_path):
    root = two_classes(tmp_path)
    put(root / "ant" / ".a.png")
    (root / "ant" / ".DS_Store").write_bytes(b"x")
    assert list_folder(root).hidden == ["ant/.a.png"]


def linked(tmp_path):
    """Class folders that are links into a pool of pictures."""
    pool = two_classes(tmp_path / "pool")
    root = tmp_path / "view"
    root.mkdir()
    for name in ("ant", "bee"):
        (root / name).symlink_to(pool / name)
    return root, pool


@unix
def test_linked_folders_are_followed_on_request(tmp_path):
    root, _ = linked(tmp_path)
    with pytest.raises(InputError, match="--follow-symlinks"):
        scan(root)
    folder = scan(root, follow=True)
    assert [entry.path for entry in folder.entries] == [f"{name}/{n}.png" for name in ("ant", "bee") for n in range(3)]
    assert decode(folder.path_of(folder.entries[0])).kind[0] == "RGB"


@unix
def test_linked_files_are_followed_into_the_same_place(tmp_path):
    pool, root = two_classes(tmp_path / "pool"), tmp_path / "view"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").symlink_to(pool / name / "0.png")
    with pytest.raises(InputError, match="leaves"):
        scan(root)
    assert len(scan(root, follow=True).entries) == 2
    (root / "bee" / "1.png").symlink_to(put(tmp_path / "elsewhere" / "1.png"))
    with pytest.raises(InputError, match=r"bee.1\.png is a link to .*elsewhere.*, but .* lead into .*pool"):
        scan(root, follow=True)


@unix
def test_links_to_several_places_are_refused_with_both(tmp_path):
    root, _ = linked(tmp_path)
    (root / "cat").symlink_to(put(tmp_path / "private" / "cat" / "0.png", photo()).parent)
    with pytest.raises(InputError, match=r"cat is a link to .*private.cat, but .* lead into .*pool"):
        scan(root, follow=True)


@unix
def test_links_in_a_circle_are_refused(tmp_path):
    root, pool = linked(tmp_path)
    (pool / "ant" / "again").symlink_to(root / "bee")
    (pool / "bee" / "again").symlink_to(pool / "ant")
    with pytest.raises(InputError, match=r"again is a link to .*, which holds the link itself"):
        scan(root, follow=True)
    shutil.rmtree(root)
    two_classes(root)
    (root / "ant" / "up").symlink_to(root)
    with pytest.raises(InputError, match="which holds the link itself"):
        scan(root, follow=True)


def test_an_animated_png_is_refused_when_it_is_read(tmp_path):
    frames = [Image.fromarray(photo(seed=seed)) for seed in range(2)]
    frames[0].save(two_classes(tmp_path) / "ant" / "a.apng", "PNG", save_all=True, append_images=frames[1:])
    folder = scan(tmp_path)
    with pytest.raises(InputError, match="2 frames"):
        decode(folder.root / "ant" / "a.apng")
