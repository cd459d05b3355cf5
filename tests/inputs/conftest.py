"""Fixtures of the inputs' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxloop.exceptions import InputError
from fluxloop.inputs.cases import Inputs, inputs_from

Read = Callable[..., Inputs]
Faults = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read inputs from a file of this name and content in the working directory."""
    monkeypatch.chdir(tmp_path)

    def read(name: str, text: str | bytes, **options: Any) -> Inputs:
        path = Path(name)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return inputs_from(path, **options)

    return read


@pytest.fixture
def faults(read: Read) -> Faults:
    """What is told of inputs that are wrong, line by line."""

    def faults(name: str, text: str | bytes, **options: Any) -> list[str]:
        with pytest.raises(InputError) as caught:
            read(name, text, **options)
        return str(caught.value).splitlines()

    return faults
