import math

import pytest
import torch
from helpers import image_set, stripes, target

from pueprotect.audit.attacks import Target, find, pst
from pueprotect.audit.attacks.acm import Reading
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import Schedule


def test_pst_trains_plainly_on_clean_data() -> None:
    result = find("pst").run(target(epochs=6), stripes(40, seed=1))
    plain = find("standard").run(target(epochs=6), stripes(40, seed=1))
    assert result.details["alarms"] == 0
    assert result.details["steps"] == target(epochs=6).schedule.steps(64)
    assert result.accuracy == plain.accuracy
    assert result.details["epoch_accuracy"] == plain.details["epoch_accuracy"]


def test_the_trace_is_a_table_of_acm_alarms_and_noise_level_over_training() -> None:
    result = find("pst").run(Target(large(), "resnet8", Schedule(epochs=2), 0), stripes(8, seed=1))
    trace = result.details["trace"]
    assert [entry["step"] for entry in trace] == list(range(20, result.details["steps"] + 1, 20))
    assert sum(entry["alarm"] for entry in trace) == result.details["alarms"]
    for entry in trace:
        assert set(entry) >= {"step", "position", "acm", "ratio", "pattern_ratio", "alarm", "level", "lowpass"}
        assert list(entry["acm"]) == ["stem", "stage1", "stage2", "stage3"]
        assert all(math.isfinite(value) and value >= 0 for value in entry["acm"].values())
        assert math.isfinite(entry["ratio"])
    assert trace[0]["pattern_ratio"] is None  # measured every second time
    assert math.isfinite(trace[1]["pattern_ratio"])


def large() -> ImageSet:
    return stripes(1300)


CALM = Reading([0.2] * 4, [0.2] * 4, [0.1] * 4, [0.4] * 4)
FINE = Reading([0.2, 9.0, 9.0, 9.0], [0.2] * 4, [0.1] * 4, [0.4] * 4)
BOTH = Reading([0.2, 9.0, 9.0, 9.0], [0.2] * 4, [9.0] * 4, [0.4] * 4)
PATTERN = Reading([0.2] * 4, [0.2] * 4, [9.0] * 4, [0.4] * 4)


def run_with(
    readings: list[Reading], monkeypatch: pytest.MonkeyPatch, epochs: float = 2, data: ImageSet | None = None
) -> dict[str, object]:
    """Details of a PST run with scripted readings, calm after the last one."""
    script = iter(readings)

    class Scripted(pst.Probe):
        def measure(self, *, pattern: bool = True) -> Reading:
            return next(script, CALM)

    monkeypatch.setattr(pst, "Probe", Scripted)
    monkeypatch.setattr(pst, "IMAGES_BETWEEN_CHECKS", 64)
    result = find("pst").run(
        Target(data or coded(), "resnet8", Schedule(epochs=epochs, batch_size=32), 0), stripes(8, seed=1)
    )
    return result.details


def coded(count: int = 320) -> ImageSet:
    """Two classes with a code in one pixel, by default enough images for the pattern view."""
    data = stripes(count)
    images = data.images.float()
    images[data.labels == 0, :, 4, 4] = 255
    images[data.labels == 1, :, 4, 4] = 0
    return image_set(images, data.labels, 2)


def test_a_second_fine_alarm_restarts_behind_the_low_pass_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    details = run_with([CALM, FINE, CALM, FINE], monkeypatch)
    assert (details["alarms"], details["rung"], details["class_patterns_removed"]) == (2, 1, ["fine"])
    assert details["steps"] == 4 + 4 + 20
    trace = details["trace"]
    assert [entry["view"] for entry in trace[:5]] == [None, "fine", None, "fine", None]  # type: ignore[index]
    assert [entry["lowpass"] for entry in trace[:5]] == [0, 0, 0, 0, 1]  # type: ignore[index]
    assert [entry["position"] for entry in trace[:5]] == [2, 4, 2, 4, 2]  # type: ignore[index]


def test_a_fine_alarm_comes_first_when_both_views_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with([BOTH], monkeypatch)["class_patterns_removed"] == ["fine"]


@pytest.mark.parametrize(("reading", "view"), [(FINE, "fine"), (PATTERN, "pattern")])
def test_each_view_removes_its_patterns_once_and_then_changes_the_stages(
    reading: Reading, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = run_with([reading], monkeypatch)
    assert (details["alarms"], details["rung"], details["class_patterns_removed"]) == (1, 0, [view])
    again = run_with([reading, reading], monkeypatch)
    assert (again["alarms"], again["rung"], again["class_patterns_removed"]) == (2, 1, [view])


def test_classes_too_small_for_a_pattern_go_straight_to_the_low_pass_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    details = run_with([FINE], monkeypatch, data=coded(98))
    assert (details["rung"], details["class_patterns_removed"]) == (1, [])


@pytest.mark.parametrize("reading", [FINE, PATTERN])
def test_after_an_alarm_the_code_is_gone_from_the_training_images(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[ImageSet] = []
    original = ImageSet.frames

    def spy(self: ImageSet, index: torch.Tensor) -> torch.Tensor:
        if len(self) == 320:  # not the test images
            shown.append(self)
        return original(self, index)

    monkeypatch.setattr(ImageSet, "frames", spy)
    steps = run_with([reading], monkeypatch)["steps"]
    first, last = shown[0], shown[steps - 1]
    before, after = (
        [float(data.images[data.labels == label, :, 4, 4].float().mean()) for label in (0, 1)] for data in (first, last)
    )
    assert abs(before[0] - before[1]) == 255
    assert abs(after[0] - after[1]) < 128
    pixels = torch.ones(16, 16, dtype=torch.bool)
    pixels[2:7, 2:7] = False
    change = (last.images.float() - first.images.float())[..., pixels].abs().mean()
    assert float(change) < 8  # pictures stay, up to what the class means hold by chance


def test_the_budget_holds_however_often_it_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    details = run_with([FINE] * 200, monkeypatch)
    assert details["steps"] <= 2 * 20
    assert details["rung"] == len(pst.LADDER) - 1
