"""Everything that pueprotect raises on purpose.

    PueprotectError
    ├── InputError            a folder, file or option that cannot be used        exit 2
    │   └── ImageError        one image file that cannot be read or written       exit 2
    ├── VaultError            the private side of a release is missing or broken  exit 2
    ├── StaleDataError        released files differ from the recorded digests     exit 3
    ├── CertificateError      a certificate contradicted by its own cross-check   exit 2
    └── PlatformError         the machine lacks what was asked for                exit 2

Each message is one sentence that names the file or option and the mend. Abstentions and failed
gates are values, not exceptions.
"""


class PueprotectError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 2


class InputError(PueprotectError):
    """A folder, file or option that cannot be used."""


class ImageError(InputError):
    """An image file that cannot be decoded or encoded."""


class VaultError(PueprotectError):
    """The vault is missing, incomplete or of another schema."""


class StaleDataError(PueprotectError):
    """Released files are missing, added or changed since they were protected."""

    exit_code = 3


class CertificateError(PueprotectError):
    """Draws inside the certified ball contradict the bound: a defect of this program, or the alpha of bad luck."""


class PlatformError(PueprotectError):
    """The machine lacks the device or library that was asked for."""
