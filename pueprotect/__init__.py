"""Make labelled images unlearnable, certify how much could still be learnt, and audit the result.

The command line does this (`pueprotect --help`), and so do three functions:

    from pueprotect import audit, certify, protect

    protect("photos", "shared")
    print(certify("shared").curve)
    print(audit("shared", attacks=("standard", "pst")).worst)

Each room is a package and imports only from the rooms before it: errors, runtime, images and learning, release,
protect, audit, certify, check, cli. Below cli, functions take tensors, paths and frozen settings, return frozen results
and print nothing. Torch is imported when the work starts.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pueprotect.runtime import VERSION

if TYPE_CHECKING:
    from pueprotect.protect.report import Report
    from pueprotect.release.audits import Audit
    from pueprotect.release.certificates import Certificate

__all__ = ["__version__", "audit", "certify", "protect"]

__version__ = VERSION


def protect(src: str | Path, out: str | Path, **options: Any) -> Report:
    """Make a protected copy `out` of the class folders in `src`; see `protect.options.Options`."""
    from pueprotect.learning.device import this_machine
    from pueprotect.protect.options import Options
    from pueprotect.protect.pipeline import protect_folder

    return protect_folder(Path(src), Path(out), options=Options(**options), machine=this_machine())


def certify(out: str | Path, **settings: Any) -> Certificate:
    """Bound what can still be learnt from a release of this package; see `certify.certificate.CertificateSettings`."""
    from pueprotect.certify.certificate import CertificateSettings
    from pueprotect.certify.pipeline import certify_folder

    return certify_folder(Path(out), CertificateSettings(**settings))


def audit(out: str | Path, **settings: Any) -> Audit:
    """Measure what attackers learn from a release of this package; see `audit.pipeline.AuditSettings`."""
    from pueprotect.audit.pipeline import AuditSettings, audit_folder

    return audit_folder(Path(out), AuditSettings(**settings))


class _Room(ModuleType):
    """A package that can be called, because its import replaces the function of the same name here."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _FUNCTIONS[self.__name__.rpartition(".")[2]](*args, **options)


_FUNCTIONS: dict[str, Any] = {"protect": protect, "certify": certify, "audit": audit}
for _name in _FUNCTIONS:
    import_module(f"{__name__}.{_name}")
    sys.modules[f"{__name__}.{_name}"].__class__ = _Room
