"""Fixtures of the configuration's tests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fluxloop.config import LoadedConfig, load_config
from fluxloop.exceptions import ConfigError

Load = Callable[..., LoadedConfig]
Faults = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a configuration of this text from `c.yaml` of the working directory."""
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes, *, environment: Mapping[str, str] | None = None, **options: Any) -> LoadedConfig:
        path = Path("c.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(path, environment=environment or {}, **options)

    return load


@pytest.fixture
def faults(load: Load) -> Faults:
    """What is told of a configuration that is wrong, line by line."""

    def faults(text: str | bytes, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **options)
        return str(caught.value).splitlines()

    return faults


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Copy a sample project here; its modules are forgotten afterwards."""
    before = set(sys.modules)

    def project(source: Path) -> Path:
        return shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))

    yield project
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
