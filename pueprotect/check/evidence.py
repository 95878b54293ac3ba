"""Reads the recorded evidence of one release, and tells which of it is for the files as they are. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pueprotect.audit.findings import recovered_share
from pueprotect.check.consistency import certificate_fault, record_fault
from pueprotect.errors import InputError, VaultError
from pueprotect.release.audits import CLEAN_LINE, AuditRecord, AuditRow
from pueprotect.release.certificates import Certificate
from pueprotect.release.digests import Verification, data_digest, digest_files, verify
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import CERTIFICATE, MANIFEST, RUN, SCHEMA_VERSION, Vault, default_vault

LOOKS = "looks.jsonl"  # where `certify` counts the certifications of a release


@dataclass(frozen=True)
class Evidence:
    """The recorded evidence of one release.

    Attributes:
        out: the released folder.
        vault: the folder of the evidence.
        own: whether pueprotect made the release, so that there is a manifest.
        digest: of the released files: the recorded one if there is a manifest, else that of the files as they are.
        difference: how the files differ from the manifest.
        rows: the manifest; empty without one.
        run: `run.json`; empty without a manifest.
        certificate: may be for other files.
        audit: every recorded attack with every seed, the first seed first; some may be for other files.
    """

    out: Path
    vault: Path
    own: bool
    digest: str
    difference: Verification
    rows: tuple[ManifestRow, ...]
    run: dict[str, Any]
    certificate: Certificate | None
    audit: tuple[AuditRecord, ...]

    @cached_property
    def fresh(self) -> tuple[AuditRecord, ...]:
        """Recorded attacks on these very files, without the clean lines."""
        return tuple(r for r in self.audit if r.key.data_digest == self.digest and r.key.attack != CLEAN_LINE)

    @cached_property
    def clean_lines(self) -> tuple[AuditRecord, ...]:
        """Plain trainings on the clean originals of these files."""
        return tuple(r for r in self.audit if r.key.data_digest == self.digest and r.key.attack == CLEAN_LINE)

    def clean_line(self, record: AuditRecord) -> AuditRecord | None:
        """The clean line for `record`: the same network and test images; if possible the same epochs, then seed.

        An attack with a schedule of its own is compared with the longest clean training.
        """
        key = record.key
        lines = [r for r in self.clean_lines if (r.key.arch, r.key.test_digest) == (key.arch, key.test_digest)]
        return max(
            lines, key=lambda r: (r.key.epochs == key.epochs, r.key.seed == key.seed, r.key.epochs), default=None
        )

    @cached_property
    def runs(self) -> dict[tuple[str, str], list[AuditRecord]]:
        """The fresh records of each attack and network, one for each seed."""
        found: dict[tuple[str, str], list[AuditRecord]] = {}
        for record in self.fresh:
            found.setdefault((record.key.attack, record.key.arch), []).append(record)
        return found

    @cached_property
    def rows_by_attack(self) -> dict[str, list[AuditRow]]:
        """The fresh attacks with their recovered share, one row for each network and seed."""
        found: dict[str, list[AuditRow]] = {}
        for record in self.fresh:
            found.setdefault(record.key.attack, []).append(AuditRow.over([record.result], self.recovered(record)))
        return found

    def recovered(self, record: AuditRecord) -> float | None:
        """See `recovered_share`."""
        line = self.clean_line(record)
        return recovered_share(record.result.accuracy, record.chance, line.result.accuracy if line else None)


Model = TypeVar("Model", bound=BaseModel)


def read_evidence(out: Path, vault: Path | None = None, workers: int = 0) -> Evidence:
    """Hash the released files and read the evidence in their vault; nothing is decoded.

    Args:
        out: the released folder.
        vault: None takes `OUT.vault`.
        workers: hashing threads; 0 chooses.

    Raises:
        InputError: no such folder.
        VaultError: no vault, or a file in it is damaged.
    """
    place = vault or default_vault(out)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; name the released folder.")
    store = Vault.open(place)
    own = store.is_sealed
    run = store.run() if own else {}
    rows = tuple(store.read_manifest()) if own else ()
    if own:
        difference = verify(out, rows, workers)
        digest = data_digest({row.path: row.released_sha256 for row in rows})
    else:
        # Imported here: only a folder of another tool is scanned for images, and that takes numpy and Pillow.
        from pueprotect.images.folders import scan

        difference = Verification((), (), ())
        digest = data_digest(digest_files(out, [entry.path for entry in scan(out).entries], workers))
    certificate = (
        _parsed(store, CERTIFICATE, Certificate, certificate_fault) if (place / CERTIFICATE).is_file() else None
    )
    audit = tuple(_parsed(store, name, AuditRecord, partial(record_fault, name)) for name in audit_files(place))
    return Evidence(out, place, own, digest, difference, rows, run, certificate, audit)


def audit_files(vault: Path) -> list[str]:
    """The names of all recorded attacks in a vault: those of the first seed, then `audit/seed-1/`, ... in order."""
    folders = [folder for folder in (vault / "audit").glob("seed-*") if folder.name.removeprefix("seed-").isdecimal()]
    ordered = [vault / "audit", *sorted(folders, key=lambda folder: int(folder.name.removeprefix("seed-")))]
    return [path.relative_to(vault).as_posix() for folder in ordered for path in sorted(folder.glob("*.json"))]


def evidence_files(vault: Path) -> list[str]:
    """The names of all files in a vault that a check rests on: what was read, and the draws and keys behind it.

    Networks and the noise are left out: no figure is read from them, and where a check runs they need not be.
    """
    names = [name for name in (RUN, MANIFEST, CERTIFICATE, LOOKS) if (vault / name).is_file()]
    behind = sorted(
        path.relative_to(vault).as_posix()
        for path in (vault / "certify").rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and not path.name.startswith(".")
    )
    return names + behind + audit_files(vault)


def _parsed(store: Vault, name: str, model: type[Model], fault: Callable[[Model], str | None]) -> Model:
    data = store.read_json(name)
    version = data.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise VaultError(
            f"{store.path / name} has schema_version {version!r}, and this pueprotect reads {SCHEMA_VERSION}; use the "
            "pueprotect that wrote it."
        )
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise VaultError(
            f"{store.path / name} is damaged ({where}: {detail['msg']}); run the command that writes it again."
        ) from error
    if why := fault(found):
        raise VaultError(f"{store.path / name} is damaged ({why}); run the command that writes it again.")
    return found
