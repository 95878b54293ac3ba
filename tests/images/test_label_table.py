import pytest
from helpers import put

from pueprotect.errors import InputError
from pueprotect.images.folders import scan


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "sub/b.png"):
        put(tmp_path / "set" / name)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path;label\na.png;x\nsub/b.png;y\n", "line 1: columns are separated by semicolons; save .* with commas"),
        ("path\tlabel\na.png\tx\nsub/b.png\ty\n", "line 1: columns are separated by tabs; save .* with commas"),
        ("name,class\na.png,x\nsub/b.png,y\n", "line 1: it must name the columns path,label"),
        ("path,label\na.png,x\nset/sub/b.png,y\n", r"line 3: set/sub/b\.png begins with the name .*; write sub/b\.png"),
        ("path,label\n./set/a.png,x\nsub/b.png,y\n", r"line 2: set/a\.png begins with the name .*; write a\.png"),
        ("path,label\na.png,x\n{root}/sub/b.png,y\n", r"line 3: .* is an absolute path; .* such as sub/b\.png"),
        ("path,label\na.png,x\nC:\\set\\sub\\b.png,y\n", r"line 3: .* is an absolute path; .* such as sub/b\.png"),
        ("path,label\n/other/c.png,x\nsub/b.png,y\n", r"line 2: .* is an absolute path; .* such as CLASS/1\.png"),
        ("path,label\na.png,x\nsub\\b.png,y\n", r"line 3: .* has backslashes; write sub/b\.png"),
        ("path,label\na.png,x\nsub/none.png,y\n", r"line 3: sub/none\.png is not below"),
        ("path,label\na.png,x\nsub/b.png,X\n", "'X' and 'x', which differ only in"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_line_and_the_remedy(root, tmp_path, text, says):
    table = tmp_path / "labels.csv"
    table.write_text(text.replace("{root}", str(root)))
    with pytest.raises(InputError, match=says) as caught:
        scan(root, table)
    assert str(table) in str(caught.value)


def test_a_folder_below_with_the_same_name_is_no_mistake(root, tmp_path):
    put(root / "set" / "c.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.png,x\nsub/b.png,y\nset/c.png,y\n")
    assert len(scan(root, table).entries) == 3
