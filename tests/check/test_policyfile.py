import time
from datetime import date
from pathlib import Path

import pytest

from pueprotect.check.policyfile import read_policy
from pueprotect.errors import InputError

CONTRACT = """version: 1
certify: {q: 0.9, eta: 0.1, max_learnability: 0.25, min_draws: 1000}
audit: {suite: quick, max_accuracy: 0.40, max_recovered: 0.5, attacks: {pst: {max_accuracy: 0.35}}}
images: {min_coverage: 1.0, max_linf: 8, min_ssim: 0.9}
waivers: [{rule: audit.jpeg, reason: "...", expires: 2027-01-31}]
"""


def write(place: Path, text: str) -> Path:
    path = place / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_example_policy_is_read_with_the_line_of_each_rule(tmp_path: Path) -> None:
    file = read_policy(write(tmp_path, CONTRACT))
    policy = file.policy
    assert policy.certify is not None
    assert policy.audit is not None
    assert (policy.certify.q, policy.certify.eta, policy.certify.min_draws) == (0.9, 0.1, 1000)
    assert policy.audit.limits_of("pst") == {"max_accuracy": 0.35, "max_recovered": 0.5}
    assert policy.audit.limits_of("standard") == {"max_accuracy": 0.4, "max_recovered": 0.5}
    assert policy.waivers[0].expires == date(2027, 1, 31)
    lines = {"certify.max_learnability": 2, "audit.suite": 3, "audit.pst.max_accuracy": 3, "images.min_ssim": 4,
             "waivers.audit.jpeg": 5, "data.digest": 1}  # fmt: skip
    assert {rule: file.line_of(rule) for rule in lines} == lines


def test_an_attacks_own_line_comes_before_the_common_one(tmp_path: Path) -> None:
    text = "version: 1\naudit:\n  max_accuracy: 0.4\n  attacks:\n    pst:\n      max_accuracy: 0.3\n"
    file = read_policy(write(tmp_path, text))
    assert file.line_of("audit.pst.max_accuracy") == 6
    assert file.line_of("audit.standard.max_accuracy") == 3
    assert file.line_of("audit.pst.max_recovered") == 5


def changed(old: str, new: str) -> str:
    assert old in CONTRACT
    return CONTRACT.replace(old, new)


BAD = [
    (changed("max_linf", "max_lnf"), 4, ("unknown key images.max_lnf", "max_linf?", "min_coverage", "min_ssim")),
    (changed("{max_accuracy: 0.35}", "{accuracy: 1}"), 3, ("unknown key audit.attacks.pst.accuracy", "max_recovered")),
    (changed("images:", "image:"), 4, ("unknown key image", "images?", "waivers")),
    (changed("8,", "eight,"), 4, ("images.max_linf is 'eight'", "whole levels from 0 to 255")),
    (changed("8,", "8.5,"), 4, ("images.max_linf is 8.5", "whole levels from 0 to 255")),
    (changed("8,", "300,"), 4, ("images.max_linf is 300", "from 0 to 255")),
    (changed("0.25", "1.5"), 2, ("certify.max_learnability is 1.5", "a number from 0 to 1")),
    (changed("0.25", ".nan"), 2, ("certify.max_learnability is nan", "a number from 0 to 1")),
    (changed("0.25", "true"), 2, ("certify.max_learnability is true", "a number from 0 to 1")),
    (changed("q: 0.9", "q: '0.9'"), 2, ("certify.q is '0.9'", "between 0 and 1")),
    (changed("quick", "full"), 3, ("audit.suite is 'full'", "one of quick")),
    (changed(", expires: 2027-01-31", ""), 5, ("waivers[1].expires is missing", "a date such as 2027-01-31")),
    (changed('reason: "..."', 'reason: " "'), 5, ("waivers[1].reason is ' '", "a sentence")),
    (changed("2027-01-31", "soon"), 5, ("waivers[1].expires is 'soon'", "a date")),
    (changed("audit.jpeg", "data.digest"), 5, ("waivers[1].rule is 'data.digest'", "certify, audit or images")),
    (changed("version: 1", "version: 2"), 1, ("version is 2", "give 1")),
    (changed("version: 1\n", ""), 1, ("version is missing", "give 1")),
    ("version: 1\nimages:\n  max_linf: 8\n  max_linf: 9\n", 4, ("max_linf is there twice",)),
    ("version: 1\ncertify:\n", 2, ("certify is empty",)),
    ("version: 1\ncertify: {q: 0.9}\n", 2, ("certify sets no limit", "max_learnability")),
    ("version: 1\naudit: 3\n", 2, ("audit is 3", "keys")),
    ("version: 1\nimages: {max_linf: 8\n", 2, ("not YAML",)),
    ("- version: 1\n", 1, ("not a policy", "version: 1")),
    ("version: 1\n", 1, ("the policy sets no limit", "certify, audit, images")),
    ("version: 1\nwaivers: []\n", 1, ("the policy sets no limit",)),
    ("version: 1\ncertify: {recipe: best, min_draws: 1}\n", 2, ("certify.recipe is 'best'", "one of worst, online")),
    ("version: 1\nimages: &all\n  max_linf: 8\n", 2, ("anchors (&) and aliases (*) are not allowed",)),
    ("version: 1\nimages: &all {max_linf: 8}\n", 2, ("anchors (&) and aliases (*) are not allowed",)),
    ("version: 1\nimages:\n  max_linf: *all\n", 3, ("anchors (&) and aliases (*) are not allowed",)),
    ("version: 1\nimages:\n  <<: *all\n", 3, ("anchors (&) and aliases (*) are not allowed",)),
    ("version: 1\nwaivers:\n" + "[" * 500, 3, ("more than 20 levels of lists and keys",)),
    ("version: 1\n" + "".join(f"a{n}: 1\n" for n in range(6000)), 5000, ("more than 10000 keys and values",)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "parts"), BAD, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_errors_name_file_line_and_allowed_values(text: str, line: int, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_policy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a: &a [*a]\n", b"? [a]\n: 1\n", b"a: 2027-02-31\n"])
def test_odd_files_are_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"policy\.yaml") as caught:
        read_policy(path)
    assert "\n" not in str(caught.value)


def test_a_file_may_not_be_endless(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        read_policy(write(tmp_path, CONTRACT + "#" * (1 << 20)))
    whole = write(tmp_path, CONTRACT + "#" * ((1 << 20) - len(CONTRACT)))
    assert read_policy(whole).policy.version == 1, "a file of the largest size is read"


def test_aliases_of_aliases_are_refused_at_once(tmp_path: Path) -> None:
    """Ten names of ten names, eight times: a hundred million entries."""
    rows = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))]
    began = time.perf_counter()
    with pytest.raises(InputError, match="line 2: anchors"):
        read_policy(write(tmp_path, "version: 1\n" + "\n".join(rows)))
    assert time.perf_counter() - began < 5


def test_twenty_levels_are_read(tmp_path: Path) -> None:
    """They are no policy, but the message is about the policy."""
    with pytest.raises(InputError, match="unknown key a"):
        read_policy(write(tmp_path, CONTRACT + "a: " + "[" * 18 + "]" * 18))


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--policy"):
        read_policy(tmp_path / "none.yaml")
