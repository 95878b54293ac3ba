"""Interrupts a command at a chosen moment."""

from collections.abc import Callable, Iterator

import pytest

from pueprotect.cli.progress import Bars


@pytest.fixture
def interrupted_during(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Raises KeyboardInterrupt once, at the first or third step of the named work."""
    advance = Bars.advance

    def install(label: str) -> None:
        steps = 0

        def stop(self: Bars, parts: int = 1, note: str = "") -> None:
            nonlocal steps
            steps += self.label == label
            if steps == (3 if label in ("read originals", "self-check on the released files", "write") else 1):
                monkeypatch.setattr(Bars, "advance", advance)
                raise KeyboardInterrupt
            advance(self, parts, note)

        monkeypatch.setattr(Bars, "advance", stop)

    return install
