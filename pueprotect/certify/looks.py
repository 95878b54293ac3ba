"""Records every certification of a release, so that the level alpha holds for all of them together.

Whoever certifies again with more draws, another seed or another sigma until the gate passes has looked several times,
and one look in many misses by chance. So the looks at the same released bytes are counted, and the j-th one gets
`bounds.spent(alpha, j)`; the sum over all looks is at most alpha. The file is in the vault and is only appended to. It
outlives runs without `--resume` and a new run of `protect`. Looks that another vault holds are unknown, and so are
those of a file that was removed. A repeat with the same key gives the same result and is no further look.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pueprotect.certify.bounds import spent
from pueprotect.certify.draws import append_text
from pueprotect.errors import VaultError

LOOKS = "looks.jsonl"


class Looks:
    """The recorded looks at the released bytes with digest `data_digest`, in the file `path`.

    A key is everything that the result of a look depends on, as plain JSON values, with `data_digest` and `alpha`.

    Raises:
        VaultError: the file is damaged or cannot be read.
    """

    def __init__(self, path: Path, data_digest: str) -> None:
        self.path, self.data_digest = path, data_digest
        self.keys: list[dict[str, Any]] = []
        try:
            text = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise VaultError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
        self._whole = text.rfind(b"\n") + 1  # a killed process may have left an unfinished line, of an unseen result
        self._cut = self._whole < len(text)
        for number, line in enumerate(text[: self._whole].splitlines(), start=1):
            try:
                key = json.loads(line)
                if key["data_digest"] == data_digest:
                    float(key["alpha"])
                    self.keys.append(key)
            except (ValueError, KeyError, TypeError) as error:
                raise VaultError(
                    f"{path}, line {number}: not the record of a certification. Restore the file from a copy."
                ) from error

    def number(self, known: dict[str, Any]) -> int:
        """The number of the first look, from 1, whose key has all of `known`; that of a new look if there is none."""
        wanted = _plain(known)
        same = (number for number, key in enumerate(self.keys, start=1) if key | wanted == key)
        return next(same, len(self.keys) + 1)

    def record(self, key: dict[str, Any]) -> int:
        """Append a look, unless one with this key is recorded, and flush it to disk; returns its number."""
        number = self.number(key)
        if number > len(self.keys):
            self.keys.append(_plain(key))
            append_text(self.path, json.dumps(key) + "\n", keep=self._whole if self._cut else None)
            self._cut = False
        return number

    @property
    def alpha_spent(self) -> float:
        """The sum of the failure probabilities of all looks."""
        return sum(spent(float(key["alpha"]), number) for number, key in enumerate(self.keys, start=1))


def _plain(key: dict[str, Any]) -> dict[str, Any]:
    """As it is read back."""
    plain: dict[str, Any] = json.loads(json.dumps(key))
    return plain
