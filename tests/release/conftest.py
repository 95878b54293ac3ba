"""Provides an empty vault."""

import pytest

from pueprotect.release.vault import Vault


@pytest.fixture
def vault(tmp_path):
    return Vault.create(tmp_path / "out.vault")
