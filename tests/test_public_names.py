"""What `import fluxloop` offers, and what it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import fluxloop

HEAVY = (
    *("yaml", "ruamel", "ruamel.yaml", "cattrs", "click", "tqdm", "msgspec"),
    *("subprocess", "socket", "multiprocessing", "ray", "fluxloop.executors"),
)


def test_names_are_sorted() -> None:
    """`__all__` is sorted and says no name twice."""
    assert fluxloop.__all__ == sorted(set(fluxloop.__all__))


def test_names_are_those_of_their_homes() -> None:
    """Every public name has one home, and every name with a home is public."""
    homes = [name for names in fluxloop._HOMES.values() for name in names]
    assert sorted(homes) == fluxloop.__all__


@pytest.mark.parametrize("name", fluxloop.__all__)
def test_names_are_there(name: str) -> None:
    """Every public name can be imported and is the object of its home."""
    assert getattr(fluxloop, name) is getattr(importlib.import_module(fluxloop._HOME[name]), name)


def test_dir() -> None:
    """`dir` lists the public names, imported or not."""
    assert {*fluxloop.__all__, "__version__"} <= set(dir(fluxloop))


def test_other_names() -> None:
    """A name that is not there is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'fluxloop' has no attribute 'experimant'"):
        _ = fluxloop.experimant


@pytest.mark.parametrize(
    "code",
    [
        "import fluxloop",
        "from fluxloop import agent, event, generation, prompt, span, tool, trace, current_run, carry_context",
        "from fluxloop import record, record_call_args, enable_recording, disable_recording, recording_errors",
    ],
)
def test_importing_is_light(code: str) -> None:
    """Importing the package, or its decorators, loads no YAML, cattrs, click, tqdm or msgspec, and no executor."""
    code += f"\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
