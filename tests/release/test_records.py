import json
from pathlib import Path

from helpers import hexes, row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import Vault


def test_a_manifest_holds_any_name(tmp_path: Path) -> None:
    store = Vault.create(tmp_path / "v")
    row = ManifestRow(
        path="a\udcff\n", class_name="b\udce9", split="train", source_path="a\udcff\n", source_sha256="0",
        released_sha256="1",
    )  # fmt: skip
    store.write_manifest([row])
    assert store.read_manifest() == [row]
    (tmp_path / "v/manifest.jsonl").read_text(encoding="utf-8")


measured = st.none() | st.floats(-1, 100)
manifest_rows = st.builds(
    ManifestRow,
    path=st.text(st.characters(codec="utf-8"), min_size=1),
    class_name=st.text(st.characters(codec="utf-8")),
    split=st.sampled_from(["train", "holdout"]),
    source_path=st.text(st.characters(codec="utf-8")),
    source_sha256=hexes,
    released_sha256=hexes,
    linf=st.none() | st.integers(0, 255),
    psnr=measured,
    ssim=measured,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(manifest_rows, max_size=6))
def test_manifest_round_trip(vault, rows):
    vault.write_manifest(rows)
    assert vault.read_manifest() == rows


def test_manifest_lines_are_the_public_schema(vault):
    vault.write_manifest([row("ant/ä.png", b"x")])
    line = json.loads((vault.path / "manifest.jsonl").read_text(encoding="utf-8"))
    assert line["class"] == "ant"
    assert list(line) == [
        "path",
        "class",
        "split",
        "source_path",
        "source_sha256",
        "released_sha256",
        "linf",
        "psnr",
        "ssim",
    ]
    later = {**line, "added_later": 1}
    (vault.path / "manifest.jsonl").write_text(json.dumps(later), encoding="utf-8")
    assert vault.read_manifest() == [row("ant/ä.png", b"x")]
