import numpy as np
import pytest
from helpers import put, two_classes

from pueprotect.errors import InputError
from pueprotect.images import decode, listing
from pueprotect.images.folders import ImageEntry, scan


def test_scan_takes_the_first_folder_as_class_at_any_depth(tmp_path):
    put(tmp_path / "bee" / "x.PNG", format="PNG")
    put(tmp_path / "ant" / "deep" / "er" / "y.jpg")
    put(tmp_path / "ant" / "a.webp")
    put(tmp_path / "ant" / ".hidden.png")
    put(tmp_path / ".cache" / "z.png")
    (tmp_path / "bee" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    folder = scan(tmp_path)
    assert folder.classes == ("ant", "bee")
    assert folder.entries == (
        ImageEntry("ant/a.webp", 0),
        ImageEntry("ant/deep/er/y.jpg", 0),
        ImageEntry("bee/x.PNG", 1),
    )
    assert folder.labels.tolist() == [0, 0, 1]
    assert folder.labels.dtype == np.int64
    assert folder.ignored == ("bee/Thumbs.db", "notes.txt")
    assert folder.path_of(folder.entries[2]) == tmp_path / "bee" / "x.PNG"


def test_scan_reads_labels_from_a_table(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "sub" / "b.png")
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffpath,label,note\r\n./sub/b.png,zebra,n\r\na.png,lion,\r\n", encoding="utf-8")
    folder = scan(tmp_path, table)
    assert folder.classes == ("lion", "zebra")
    assert [(entry.path, entry.label) for entry in folder.entries] == [("a.png", 0), ("sub/b.png", 1)]
    assert folder.ignored == ("labels.csv",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.png,x\n", "path,label"),
        ("", "path,label"),
        ("path,label\na.png,x\n", "b.png has no row"),
        ("path,label\na.png,x\nb.png,y\nc.png,y\n", "line 4: c.png is not below"),
        ("path,label\na.png,x\nb.png,y\nnote.txt,y\n", "not an image that can be released"),
        ("path,label\na.png,x\nb.png,y\n../a.png,y\n", "line 4"),
        ("path,label\na.png,x\na.png,y\nb.png,y\n", "line 3: a.png is listed twice"),
        ("path,label\na.png\nb.png,y\n", "line 2"),
        ("path,label\na.png,\nb.png,y\n", "line 2"),
        ("path,label\na.png,x,extra\nb.png,y\n", "line 2"),
        ('path,label\n"a.png"x,x\nb.png,y\n', "not a CSV file"),
        ("path,label\na.png,x\nb.png,x\n", "only one class"),
    ],
)
def test_scan_refuses_a_table_that_does_not_fit(tmp_path, text, says):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        scan(tmp_path, tmp_path / "labels.csv")
    assert "labels.csv" in str(caught.value)


def test_scan_refuses_a_missing_or_binary_table(tmp_path):
    two_classes(tmp_path)
    with pytest.raises(InputError, match="--labels"):
        scan(tmp_path, tmp_path / "none.csv")
    (tmp_path / "l.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="UTF-8"):
        scan(tmp_path, tmp_path / "l.csv")


def test_scan_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "none")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        scan(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no images"):
        scan(empty)
    put(tmp_path / "flat" / "a.png")
    with pytest.raises(InputError, match=r"a\.png.*--labels"):
        scan(tmp_path / "flat")
    put(tmp_path / "one" / "ant" / "a.png")
    with pytest.raises(InputError, match="only one class, 'ant'"):
        scan(tmp_path / "one")


def test_scan_refuses_links_that_leave_the_folder(tmp_path):
    root = two_classes(tmp_path / "root")
    (root / "ant" / "same.png").symlink_to(root / "bee" / "0.png")
    assert "ant/same.png" in [entry.path for entry in scan(root).entries]
    outside = put(tmp_path / "secret.png")
    link = root / "ant" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(InputError, match=r"link\.png is a link that leaves"):
        scan(root)
    link.unlink()
    (root / "loop").symlink_to(root)
    with pytest.raises(InputError, match="loop is a link to a folder"):
        scan(root)


def test_other_pictures_are_listed_as_unsupported(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "SUFFIXES", listing.SUFFIXES - decode.HEIC_SUFFIXES)  # as without the extra
    monkeypatch.setattr(listing, "FORMATS", tuple(name for name in listing.FORMATS if name != "HEIF"))
    for name in ("ant/a.png", "bee/b.png"):
        put(tmp_path / name)
    for name in ("ant/live.HEIC", "bee/move.gif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "ant/pipe.jpg").symlink_to(tmp_path / "ant/nothing.jpg")
    found = dict(scan(tmp_path).unsupported)
    assert set(found) == {"ant/live.HEIC", "bee/move.gif", "ant/pipe.jpg"}
    assert "HEIC" in found["ant/live.HEIC"]
    assert "pip install 'pueprotect[heic]'" in found["ant/live.HEIC"]
    assert "GIF files cannot be released" in found["bee/move.gif"]
    assert "not a regular file" in found["ant/pipe.jpg"]
    (tmp_path / "only/phone").mkdir(parents=True)
    (tmp_path / "only/phone/live.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"live\.heic: HEIC .*pip install 'pueprotect\[heic\]'"):
        scan(tmp_path / "only")


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "cat "), ("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("ice cream", "ice  cream")]
)
def test_classes_whose_names_look_alike_are_refused_with_both(tmp_path, one, other):
    for name in (one, other, "dog"):
        put(tmp_path / name / "0.png")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system knows only one of the names")
    with pytest.raises(InputError, match="differ only in spaces, letter case or the form of Unicode") as caught:
        scan(tmp_path)
    assert all(ascii(name) in str(caught.value) for name in (one, other))


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "VALID"), ("train", "val", "test"), ("test",)])
def test_parts_of_a_data_set_are_not_classes(tmp_path, names):
    for name in names:
        for label in ("ant", "bee"):
            put(tmp_path / name / label / "0.png")
    first = names[0]
    with pytest.raises(InputError, match=rf"parts of a data set .*name {tmp_path / first} instead") as caught:
        scan(tmp_path)
    assert "add --label-depth 2" in str(caught.value)
    assert all(name in str(caught.value) for name in names)
    assert scan(tmp_path, depth=2).classes == scan(tmp_path / first).classes == ("ant", "bee")


def test_parts_of_a_data_set_are_found_at_any_depth_and_without_classes(tmp_path):
    for name in ("a/train/ant/0.png", "b/test/ant/0.png"):
        put(tmp_path / name)
    with pytest.raises(InputError, match=r"name .*a.train instead, or add --label-depth 3"):
        scan(tmp_path, depth=2)
    put(tmp_path / "flat/train/0.png")
    put(tmp_path / "flat/test/0.png")
    with pytest.raises(InputError, match=r"parts of a data set and not classes; use --labels"):
        scan(tmp_path / "flat")


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    for name in ("train", "bus"):
        put(tmp_path / name / "0.png")
    assert scan(tmp_path).classes == ("bus", "train")


def test_kinds_of_files_are_not_classes(tmp_path):
    for name in ("JPEGImages/0.jpg", "SegmentationClass/0.png"):
        put(tmp_path / name)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/0.xml").write_text("<a/>")
    with pytest.raises(InputError, match=r"JPEGImages, SegmentationClass, which are kinds of files .* --labels"):
        scan(tmp_path)


def test_class_folders_without_pictures_are_named(tmp_path):
    root = two_classes(tmp_path)
    (root / "cow").mkdir()
    put(root / "dog" / "a", format="GIF")
    folder = scan(root)
    assert folder.empty == ("cow", "dog")
    assert folder.counts == {"ant": 3, "bee": 3}
    (root / "deep/cow").mkdir(parents=True)
    put(root / "deep/ant" / "0.png")
    put(root / "deep/bee" / "0.png")
    assert scan(root / "deep").empty == ("cow",)
    for name in ("train/cow", "test/ant", "test/bee", "test/cow"):
        put(tmp_path / "parts" / name / "0.png")
    (tmp_path / "parts/train/ant").mkdir()
    assert scan(tmp_path / "parts", depth=2).empty == (), "the class has pictures elsewhere"
