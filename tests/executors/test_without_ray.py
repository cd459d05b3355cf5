"""The executor ray where Ray is not installed, and its parts that need none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import fluxloop
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relay import Relay, chunk, unpack
from fluxloop_cli.main import main


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_missing_ray_is_named_with_the_command_that_installs_it(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs, also when nothing is to; the code is 2."""
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not there
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "rayless_agent", raising=False)
    (tmp_path / "rayless_agent.py").write_text("def run(text): return text\n")
    (tmp_path / "in.csv").write_text("input\na\n")
    arguments = ["--target", "rayless_agent:run", "--inputs", "in.csv", "--executor", "ray"]
    told = CliRunner().invoke(main, ["run", "experiment", *arguments, *options])
    assert told.exit_code == 2
    assert "pip install 'fluxloop[ray]'" in told.output
    assert not list(tmp_path.glob("experiments/*"))


def test_a_relay_of_another_version_starts_no_worker() -> None:
    """It says which it has and which is asked for."""
    preparation = Preparation(script=None, argv=[], import_path=[], directory=Path.cwd(), task=b"")
    relay = Relay("0.0.1", None, preparation)
    relay.tell(chunk([(1, messages.START, b"")]))
    first, second = (list(unpack(said)) for said in relay.hear(1))
    relay._workers.close([])
    assert first == []
    ((worker, kind, told),) = second
    assert (worker, kind) == (1, messages.FAILED)
    assert f"has fluxloop {fluxloop.__version__}, and 0.0.1 is what runs the experiment" in told.decode()
