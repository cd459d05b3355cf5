"""What the tests of durability share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.lab import Lab, laboratory
from tests.durability.small import begun

PROJECT = Path(__file__).parents[1] / "projects" / "durable"


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is such a thing, because a real disk takes 5 ms for each sync."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="fluxloop-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def project(quick: Path) -> Path:
    """The project of an agent that fails, is tried again and notes its calls."""
    shutil.copytree(PROJECT, quick / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return quick / "project"


@pytest.fixture
def lab(project: Path, quick: Path) -> Iterator[Lab]:
    """Command lines in the project."""
    (quick / "notes").mkdir()
    with laboratory(project, quick / "notes") as lab:
        yield lab


@pytest.fixture(scope="module")
def whole_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment that is complete."""
    return begun(tmp_path_factory.mktemp("whole")).run().path


@pytest.fixture
def cut(whole_one: Path, quick: Path) -> Path:
    """A copy of it, to cut and damage."""
    return shutil.copytree(whole_one, quick / "cut")
