import hashlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.runtime import SILENT, child_seed, generator, secret_stream


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


def test_a_secret_stream_uses_all_bits_of_the_key_and_a_number_gives_the_stream_of_before() -> None:
    key = "0123456789abcdef0123456789abcdef"
    entropy = int.from_bytes(hashlib.blake2b(f"{key}/a/2".encode(), digest_size=16).digest(), "big")
    assert entropy.bit_length() > 100
    drawn = secret_stream(key, "a", 2).integers(0, 2**60, 4).tolist()
    assert drawn == np.random.default_rng(entropy).integers(0, 2**60, 4).tolist()
    others = [secret_stream(key[:-1] + "e", "a", 2), secret_stream(key, "b", 2), secret_stream(key, "a", 1)]
    assert len({tuple(drawn), *(tuple(other.integers(0, 2**60, 4).tolist()) for other in others)}) == 4
    before = np.random.default_rng(child_seed(7, "a", 2)).integers(0, 2**60, 4)
    assert secret_stream(7, "a", 2).integers(0, 2**60, 4).tolist() == before.tolist()


def test_silence_prints_nothing(capsys) -> None:
    SILENT.start("work", 3)
    SILENT.advance(2, note="half")
    SILENT.finish("done")
    assert capsys.readouterr() == ("", "")
