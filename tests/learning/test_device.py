from types import SimpleNamespace

import pytest
import torch

from pueprotect import __version__
from pueprotect.errors import PlatformError
from pueprotect.learning import device as module
from pueprotect.learning.device import (
    at_once,
    choose_device,
    device_name,
    environment,
    evaluation_batch,
    native_bf16,
    versions,
)  # fmt: skip


def gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine report so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")


@pytest.mark.parametrize(
    ("wanted", "count", "chosen"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cpu", 2, "cpu"), ("cuda", 2, "cuda:0"), ("cuda:1", 2, "cuda:1")],
)
def test_a_device_is_chosen_and_the_choice_explained(
    wanted: str, count: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(count, monkeypatch)
    found = choose_device(wanted)
    assert found.name == chosen
    assert found.is_cuda is chosen.startswith("cuda")
    assert found.reason.startswith(chosen)
    assert ("auto" in found.reason) is (wanted == "auto")


@pytest.mark.parametrize(
    ("wanted", "count", "part"),
    [("cuda", 0, "no CUDA device"), ("cuda:2", 2, "only 2 CUDA device"), ("gpu", 2, "'gpu' is not"),
     ("cuda:", 0, "no CUDA device"), ("cuda:x", 2, "'cuda:x' is not"), ("cuda:-1", 2, "'cuda:-1' is not")],
)  # fmt: skip
def test_an_absent_device_is_refused(wanted: str, count: int, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(count, monkeypatch)
    with pytest.raises(PlatformError, match=f"--device.*{part}"):
        choose_device(wanted)


def test_a_gpu_evaluates_larger_batches() -> None:
    assert evaluation_batch("cuda:1") > evaluation_batch("cpu") > 1


@pytest.mark.parametrize("size", [16, 32, 64, 96, 224, 512])
def test_batches_of_large_images_take_no_more_memory(size: int) -> None:
    """One activation of 64 channels in float32 is within 512 MiB on a GPU, and all images in it are small on a CPU."""
    assert evaluation_batch("cuda:0", size) * 64 * 4 * size**2 <= 2**29
    assert 8 <= evaluation_batch("cpu", size) <= 128
    assert evaluation_batch("cpu", size) * size**2 <= max(128 * 32**2, 8 * size**2)
    assert evaluation_batch("cuda:0", 32) == 2048
    assert at_once(4096, size) >= 1


@pytest.mark.parametrize("found", [{}, {"_is_amx_tile_supported": False}, {"_is_avx512_bf16_supported": True}])
def test_bfloat16_is_native_only_where_torch_says_so(found: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {name: (lambda answer=answer: answer) for name, answer in found.items()}
    monkeypatch.setattr(torch, "cpu", SimpleNamespace(**answers))
    assert native_bf16("cpu") is any(found.values())
    for version, native in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, version=version: version)
        assert native_bf16("cuda:0") is native


def test_the_environment_names_versions_and_the_device() -> None:
    found = environment(module.Device("cpu", "as asked"))
    assert found["pueprotect"] == __version__
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["device_name"] == device_name("cpu") != ""
    assert found["threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) for value in found.values()), "plain values for JSON"


def test_versions_name_cudnn_only_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert versions("cpu") == {"torch": torch.__version__, "cudnn": None, "pueprotect": __version__}
    assert versions("cuda:0")["cudnn"] == 91002
