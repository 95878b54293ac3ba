"""Defines every error that pueprotect raises on purpose, and the exit codes.

    PueprotectError
    ├── InputError            a folder, file or option that cannot be used        exit 2
    │   └── ImageError        one image file that cannot be read or written       exit 2
    │       └── UnusableImages   several of them                                  exit 2
    ├── VaultError            the private side of a release is missing or broken  exit 2
    ├── StaleDataError        released files differ from the recorded digests     exit 3
    ├── CertificateError      a certificate contradicted by its own cross-check   exit 2
    └── PlatformError         the machine lacks what was asked for                exit 2

A message names the file or option and says how to fix it. Abstentions and failed gates are values, not exceptions.
"""

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum

LISTED = 3


class ExitCode(IntEnum):
    """What a command returns to the shell."""

    PASS = 0
    FAIL = 1  # a gate or policy failed
    ERROR = 2  # usage, input or an internal error
    INCONCLUSIVE = 3  # abstained, incomplete, or evidence for other files
    INTERRUPTED = 130
    CLOSED_PIPE = 141  # nobody reads the output any more, as in `pueprotect check OUT | head -1`


class PueprotectError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = ExitCode.ERROR


class InputError(PueprotectError):
    """A folder, file or option that cannot be used."""


class ImageError(InputError):
    """An image file that cannot be decoded or encoded."""


class UnusableImages(ImageError):
    """Images that cannot be released; `files` holds the path of each and one sentence of why."""

    def __init__(self, files: Sequence[tuple[str, str]], among: int, remedy: str = "") -> None:
        """Name the first of `files`, found among so many images, and the `remedy` for all of them."""
        self.files = tuple(files)
        what = " ".join(reason for _, reason in self.files[:LISTED])
        if len(self.files) > 1:
            more = f" ... and {len(self.files) - LISTED} more." if len(self.files) > LISTED else ""
            what = f"{len(self.files)} of {among} images cannot be used: {what}{more}"
        super().__init__(f"{what} {remedy}".strip())


class VaultError(PueprotectError):
    """The vault is missing, incomplete or of another schema."""


class StaleDataError(PueprotectError):
    """Released files are missing, added or changed since they were protected."""

    exit_code = ExitCode.INCONCLUSIVE


class CertificateError(PueprotectError):
    """Draws inside the certified ball contradict the bound: a defect of this program, or chance of at most alpha."""


class PlatformError(PueprotectError):
    """The machine lacks the device or library that was asked for."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean a or b?` for a name that is not among the known ones."""
    known = list(known)
    return f"did you mean {' or '.join(difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known)}?"
