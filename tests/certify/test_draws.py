import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import noise_images

from pueprotect.certify.draws import DrawLog, Workers, append_text, calibration_images, draw
from pueprotect.errors import InputError, VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import build
from pueprotect.runtime import Progress


def test_calibration_is_fixed_by_the_seed() -> None:
    data = noise_images(300)
    assert torch.equal(calibration_images(data, 0), calibration_images(data, 0))
    assert len(calibration_images(data, 0)) == 128
    assert not torch.equal(calibration_images(data, 0), calibration_images(data, 1))


def test_calibration_images_are_pinned() -> None:
    """Certificates of the same seed must compare from one version to the next."""
    numbers = torch.arange(200)
    images = numbers.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    assert calibration_images(ImageSet(images, numbers % 2, 2), 0)[:5, 0, 0, 0].tolist() == [142, 7, 143, 15, 108]


KEY = {"sigma": 0.1, "seed": 4}


@pytest.fixture(scope="module")
def engine() -> DrawEngine:
    stream = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (50, 3, 16, 16), generator=stream, dtype=torch.uint8)
    return DrawEngine(build("cnn", 3, 16, seed=1), images, torch.arange(50) % 3, images[:8], sigma=0.1, seed=4)


@pytest.fixture(scope="module")
def whole(engine: DrawEngine) -> list[tuple[int, int]]:
    log = DrawLog(None, {})
    draw(engine, log, 34)
    return log.first(34)


def test_the_log_has_the_counts_of_the_engine(engine: DrawEngine, whole: list[tuple[int, int]]) -> None:
    assert whole == [tuple(engine.draw(index).tolist()) for index in range(34)]


def test_more_draws_add_to_the_stored_ones(engine: DrawEngine, whole: list[tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "vault" / "a.draws"
    draw(engine, DrawLog(path, KEY), 13)
    short = path.read_text()
    again = DrawLog(path, KEY, images=50, resume=True)
    assert again.missing(34) == list(range(13, 34))
    draw(engine, again, 34)
    assert path.read_text().startswith(short)
    assert DrawLog(path, KEY, images=50, resume=True).first(34) == whole
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 2, 15, 130, 200])
def test_a_killed_writer_costs_at_most_the_last_line(
    cut: int, engine: DrawEngine, whole: list[tuple[int, int]], tmp_path: Path
) -> None:
    path = tmp_path / "a.draws"
    draw(engine, DrawLog(path, KEY), 34)
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    log = DrawLog(path, KEY, images=50, resume=True)
    assert len(log.missing(34)) == text[-cut - 1 :].count(b"\n") - (cut > 1 and text[-cut - 1 : -cut] == b"\n")
    draw(engine, log, 34)
    assert DrawLog(path, KEY, images=50, resume=True).first(34) == whole


def test_a_log_cut_inside_its_header_starts_anew(engine: DrawEngine, tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    path.write_text(json.dumps(KEY)[:5])
    draw(engine, DrawLog(path, KEY, images=50, resume=True), 3)
    assert len(DrawLog(path, KEY, images=50, resume=True).first(3)) == 3


def test_a_log_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    DrawLog(path, KEY).add([(0, 1, 0)])
    with pytest.raises(InputError, match=r"a\.draws .*sigma 0\.1 instead of 0\.2.*--resume"):
        DrawLog(path, KEY | {"sigma": 0.2}, images=50, resume=True)
    assert DrawLog(path, KEY, images=50, resume=True).first(1) == [(1, 0)]
    assert DrawLog(path, KEY | {"sigma": 0.2}).missing(1) == [0], "without --resume it is replaced"


def written(path: Path, *rows: tuple[int, int, int]) -> None:
    DrawLog(path, KEY, images=50).add(rows)


@pytest.mark.parametrize(
    ("row", "why"),
    [("1 x 0 {}", "is not a draw"), ("1 2 0", "is not a draw"), ("1 2 0 0123456789ab", "other settings"),
     ("-1 2 0 {}", "impossible"), ("1 -2 0 {}", "impossible"), ("1 2 -1 {}", "impossible"),
     ("1 40 11 {}", "impossible for 50"), ("0 2 0 {}", "two results of draw 0")],
)  # fmt: skip
def test_a_line_that_no_run_wrote_is_refused(row: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    written(path, (0, 1, 0))
    line = row.format(DrawLog(None, KEY).digest)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(VaultError, match=rf"a\.draws.*{why}.*draw again"):
        DrawLog(path, KEY, images=50, resume=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe\n", "cannot be read .*Remove it"),
        (b"{no json\n1 2 3\n", "the first line is not JSON. Remove the file"),
    ],
)
def test_a_file_that_is_no_log_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    path.write_bytes(content)
    with pytest.raises(VaultError, match=rf"a\.draws.*{why}.* draw again"):
        DrawLog(path, KEY, images=50, resume=True)
    assert path.read_bytes() == content


def test_a_header_that_is_no_object_has_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    path.write_text("[1]\n")
    with pytest.raises(InputError, match=r"seed None instead of 4, sigma None instead of 0\.1"):
        DrawLog(path, KEY, images=50, resume=True)


def test_a_folder_in_the_place_of_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.draws").mkdir()
    with pytest.raises(VaultError, match=r"a\.draws cannot be renamed \(.+\)\. Check its folder"):
        DrawLog(tmp_path / "a.draws", KEY)
    with pytest.raises(VaultError, match=r"a\.draws cannot be written \(.+\)\. Check the space on its disk"):
        append_text(tmp_path / "a.draws", "text")


def test_appending_keeps_what_is_there_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    for text in ("first\n", "second\nunfinished"):
        append_text(path, text)
    append_text(path, "third\n", keep=len("first\nsecond\n"))
    assert path.read_text() == "first\nsecond\nthird\n"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_any_number_of_answers_up_to_that_of_the_images_is_possible(tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    rows = (0, 50, 0), (1, 0, 50), (2, 0, 0)
    written(path, *rows)
    assert DrawLog(path, KEY, images=50, resume=True).first(3) == [(50, 0), (0, 50), (0, 0)]


def test_the_same_draw_twice_is_one_draw(tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    written(path, (0, 1, 0), (1, 2, 3), (0, 1, 0))
    assert DrawLog(path, KEY, images=50, resume=True).first(2) == [(1, 0), (2, 3)]


def test_runs_that_share_a_file_cannot_mix_their_draws(engine: DrawEngine, tmp_path: Path) -> None:
    """The second run begins anew while the first one is still drawing."""
    path = tmp_path / "a.draws"
    first = DrawLog(path, KEY, images=50)
    draw(engine, first, 10)
    second = DrawLog(path, KEY | {"sigma": 0.2}, images=50)
    draw(engine, second, 10)
    draw(engine, first, 20)
    with pytest.raises(VaultError, match="other settings"):
        DrawLog(path, KEY | {"sigma": 0.2}, images=50, resume=True)


def test_a_new_run_leaves_finished_draws_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.draws"
    for number in range(3):
        written(path, (0, number, 0))
        DrawLog(path, KEY, images=50)  # has no draws and is not kept
        written(path, (1, number, 0))
    texts = [(tmp_path / f"a.draws.{number}").read_text().splitlines() for number in range(1, 6)]
    assert [text[1].split()[:2] for text in texts] == [
        ["0", "0"], ["1", "0"], ["0", "1"], ["1", "1"], ["0", "2"]
    ]  # fmt: skip
    assert DrawLog(tmp_path / "a.draws.1", KEY, images=50, resume=True).first(1) == [(0, 0)]
    assert len(list(tmp_path.iterdir())) == 6


def test_ranks_share_the_draws_and_agree(engine: DrawEngine, whole: list[tuple[int, int]]) -> None:
    """Three ranks in turn, each with its share of the draws."""
    parts = [Group(rank, 3).share(list(range(34))) for rank in range(3)]
    assert sorted(index for part in parts for index in part) == list(range(34))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert ALONE.gather(3) == [3]
    assert ALONE.from_leader("x") == "x"
    assert [tuple(engine.draw(index).tolist()) for index in parts[1]] == whole[1::3]


class Two:
    """A group of two, as its first rank sees it: the other rank draws the next index after each of mine."""

    size = 2

    def __init__(self, engine: DrawEngine) -> None:
        self.engine, self.asked = engine, list[list[int]]()

    def share(self, parts: list[int]) -> list[int]:
        return parts[::2]

    def from_leader(self, thing: Any) -> Any:
        return thing

    def gather(self, mine: Any) -> list[Any]:
        self.asked.append([index for index, *_ in mine])
        return [mine, [(index + 1, *self.engine.draw(index + 1).tolist()) for index, *_ in mine]]


class Parts(Progress):
    def __init__(self) -> None:
        self.parts: list[int] = []

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.parts.append(parts)


def test_two_ranks_draw_ten_each_at_a_time(engine: DrawEngine, whole: list[tuple[int, int]], tmp_path: Path) -> None:
    pair, log, shown = Two(engine), DrawLog(tmp_path / "a.draws", KEY, images=50), Parts()
    draw(engine, log, 34, Machine(group=pair, progress=shown))
    assert pair.asked == [list(range(0, 20, 2)), list(range(20, 34, 2))]
    assert shown.parts == [0, 20, 14]
    assert log.first(34) == whole
    rows = (tmp_path / "a.draws").read_text().splitlines()[1:]
    assert [int(row.split()[0]) for row in rows] == list(range(34)), "in order, whoever made them"


def test_progress_counts_the_draws_that_are_there_already(engine: DrawEngine) -> None:
    log, shown = DrawLog(None, {}), Parts()
    draw(engine, log, 3)
    draw(engine, log, 14, Machine(progress=shown))
    assert shown.parts == [3, 10, 1]


@pytest.mark.parametrize("arch", ["cnn", "resnet8"])
def test_several_threads_give_the_same_counts_as_one(arch: str) -> None:
    stream = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (50, 3, 16, 16), generator=stream, dtype=torch.uint8)
    one = DrawEngine(build(arch, 3, 16, seed=1), images, torch.arange(50) % 3, images[:8], sigma=0.1, seed=4)
    wanted = [one.draw(index).tolist() for index in (5, 0, 9, 2, 3)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        workers = Workers(one, 10)
        assert len(workers.engines) == 3
        assert workers.counts([5, 0, 9, 2, 3]) == wanted
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(Workers(one, 10).engines) == before
    assert workers.counts([]) == []


class Idle:
    """In the place of an engine; its result is the number of threads that torch may use in a draw."""

    def __init__(self, kind: str = "cpu") -> None:
        self.device = torch.device(kind)

    def sibling(self) -> Any:
        return Idle()

    def draw(self, index: int) -> torch.Tensor:
        return torch.tensor([torch.get_num_threads(), index])


def test_each_worker_has_one_thread_and_a_gpu_one_worker() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        workers: Any = Workers(Idle(), 2)  # type: ignore[arg-type]
        assert len(workers.engines) == 2, "at most so many"
        assert workers.counts([4, 2, 7]) == [[1, 4], [1, 2], [1, 7]]
        assert len(Workers(Idle("cuda"), 10).engines) == 1  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
