"""Make labelled images unlearnable, certify how much could still be learnt, and audit the result.

The command line does all of this (`pueprotect --help`); the same from Python:

    from pathlib import Path
    from pueprotect.runtime import choose_device
    from pueprotect.protect.pipeline import Options, protect_folder
    from pueprotect.release.opened import open_release
    from pueprotect.audit.pipeline import AuditSettings, audit

    device = choose_device()
    report = protect_folder(Path("photos"), Path("shared"), options=Options(), device=device)
    evidence = open_release(Path("shared"), device=device.name)
    found = audit(evidence, AuditSettings(attacks=("standard", "pst"), suite=None, archs=("resnet8",)))
    print(found.worst.result.attack, found.worst.recovered)

The way of the data: folder -> images -> protect -> released folder and vault -> certify, audit -> evidence.
Core functions take tensors, paths and frozen settings, return frozen results and print nothing.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
