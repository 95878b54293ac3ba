import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.runtime import SILENT, child_seed, generator


def test_seeds_do_not_change_between_versions() -> None:
    """Every release, certificate and audit depends on these: another number changes all results."""
    assert child_seed(0, "clean-share") == 1201614120463908842
    assert child_seed(7, "weight-draw", 3) == 2474992847124813725


@given(st.integers(0, 2**31), st.text("abc/-0", max_size=8), st.integers(0, 10**6))
def test_a_seed_is_63_bits_of_a_digest_of_its_three_parts(seed: int, purpose: str, index: int) -> None:
    found = child_seed(seed, purpose, index)
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).hexdigest()
    assert found == int(digest, 16) // 2
    assert 0 <= found < 2**63


def test_streams_depend_on_seed_purpose_and_index_and_on_nothing_else() -> None:
    def drawn(seed: int, purpose: str, index: int) -> list[float]:
        return torch.rand(4, generator=generator(seed, purpose, index)).tolist()

    wanted = drawn(0, "a", 0)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert drawn(0, "a", 0) == wanted
    assert torch.equal(torch.get_rng_state(), state), "the global stream does not change"
    assert len({tuple(drawn(*place)) for place in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))}) == 4


def test_silence_prints_nothing(capsys) -> None:
    SILENT.start("work", 3)
    SILENT.advance(2, note="half")
    SILENT.finish("done")
    assert capsys.readouterr() == ("", "")
