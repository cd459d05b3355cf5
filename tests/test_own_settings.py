"""What a process has set for itself is as it was before, whatever fluxloop did in it."""

from __future__ import annotations

import csv
import faulthandler
import gc
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, TargetError
from fluxloop.generating import generate
from fluxloop.inputs.readers import read_csv
from fluxloop.listing import list_experiments
from fluxloop.testing import run_once
from fluxloop.tracing.context import recording
from fluxloop.verifying import verify


def settings() -> dict[str, Any]:
    """Everything that holds for a whole process and that code can set."""
    return {
        "working directory": os.getcwd(),
        "umask": _umask(),
        "environment": dict(os.environ),
        "import path": list(sys.path),
        "import hooks": [*sys.meta_path, *sys.path_hooks],
        "arguments": list(sys.argv),
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "hooks": [sys.excepthook, sys.unraisablehook, sys.breakpointhook, sys.displayhook, threading.excepthook],
        "tracing": [sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()],
        "signal handlers": {one: signal.getsignal(one) for one in signal.valid_signals()},
        "signals held back": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "wakeup": _wakeup(),
        "garbage collector": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), list(gc.callbacks)],
        "stacks of threads": threading.stack_size(),
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": time.tzname,
        "warnings": [list(warnings.filters), warnings.showwarning],
        "logging": [logging.root.level, list(logging.root.handlers), logging.getLoggerClass(), logging.root.disabled],
        "csv": [csv.field_size_limit(), csv.list_dialects()],
        "random": random.getstate(),
        "faulthandler": faulthandler.is_enabled(),
        "asyncgen hooks": sys.get_asyncgen_hooks(),
    }


def _umask() -> str:
    with open("/proc/self/status") as status:
        return next(line for line in status if line.startswith("Umask"))


def _wakeup() -> int:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


AGENT = """
import fluxloop

@fluxloop.tool()
def tool(text): return text

def run(text):
    print(text)
    if text == "b":
        raise ValueError("cannot")
    return tool(text)

async def run_async(text):
    return run(text)
"""
CONFIG = "base_inputs:\n  - input: Where is my parcel?\n"


def _run(**options: Any) -> Callable[[Path], object]:
    options.setdefault("target", "settings_agent:run")
    given = {"inputs": "in.csv", "output_dir": "new", "python_path": ["."], "name": "new", **options}
    python_path = given.pop("python_path")
    return lambda path: Experiment(overrides={"runner": {"python_path": python_path}}, **given).run()


def _fails(path: Path) -> None:
    with pytest.raises(TargetError):
        _run(target="settings_agent:absent")(path)


def _damaged(path: Path) -> None:
    (path / "summary.json").write_text("{")
    with pytest.raises(fluxloop.OutputError):
        fluxloop.load(path)


DEEDS: dict[str, Callable[[Path], object]] = {
    "inline": _run(executor="inline"),
    "threads": _run(executor="threads", parallel=2),
    "asyncio": _run(target="settings_agent:run_async", executor="asyncio", parallel=2),
    "processes": _run(executor="processes", parallel=2),
    "with progress": _run(progress=True),
    "a target that is not there": _fails,
    "preview": lambda path: str(Experiment(target=str.upper, inputs="in.csv").preview()),
    "resume": lambda path: Experiment.resume(path, retry_failed="all").run(),
    "load": lambda path: list(fluxloop.load(path)),
    "load what is damaged": _damaged,
    "verify": lambda path: str(verify(path)),
    "parse": lambda path: fluxloop.load(path).to_markdown(),
    "list": lambda path: list_experiments(path.parent),
    "merge": lambda path: fluxloop.merge(
        [Experiment(target=str.upper, inputs="in.csv", shard=f"{k}/2", name="s", seed=1).run().path for k in (1, 2)],
        "merged",
    ),
    "generate": lambda path: generate("input.yaml", output="generated.yaml"),
    "run once": lambda path: run_once(str.upper, "a"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_the_process_keeps_its_own_settings(deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is after every kind of run and command what it was before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings_agent.py").write_text(AGENT)
    (tmp_path / "in.csv").write_text("input\na\nb\n")
    (tmp_path / "input.yaml").write_text(CONFIG)
    result = Experiment(
        target="settings_agent:run",
        inputs="in.csv",
        name="begun",
        overrides={"runner": {"python_path": ["."]}},
    ).run()
    before = settings()
    try:
        DEEDS[deed](result.path)
        assert settings() == before
    finally:
        del sys.modules["settings_agent"]


def test_no_file_is_made_by_setting_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New inputs have the rights that the user's umask leaves, and no thread sees another umask meanwhile."""
    (tmp_path / "input.yaml").write_text(CONFIG)
    before = os.umask(0o027)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was set"))
    try:
        generate(str(tmp_path / "input.yaml"), output=str(tmp_path / "out.yaml"))
        result = Experiment(target=str.upper, inputs=["a"], output_dir=tmp_path, name="m").run()
        index = result.to_markdown(tmp_path / "report")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "out.yaml").stat().st_mode & 0o777 == 0o640
    assert index.stat().st_mode & 0o777 == 0o600  # as results are, whatever the umask is


def test_files_of_inputs_are_read_beside_each_other(tmp_path: Path) -> None:
    """A long cell is read whole, and the limit of the csv module is the program's own all the while."""
    path = tmp_path / "in.csv"
    path.write_text("input\nhi\n" + "x" * 200_000 + "\n")
    before = csv.field_size_limit()
    one, other = read_csv(path), read_csv(path)
    assert next(one) == next(other) == (2, {"input": "hi"})
    assert csv.field_size_limit() == before
    assert list(one) == list(other) == [(3, {"input": "x" * 200_000})]
    assert csv.field_size_limit() == before


def test_a_module_whose_folder_is_gone_is_told(tmp_path: Path) -> None:
    """As one that is imported already and not the one that is meant."""
    code = """
import shutil, sys
from pathlib import Path
from fluxloop import Experiment, TargetError

for name in ("one", "other"):
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    (folder / "gone_agent.py").write_text("def run(x): return x")
    (folder / "simulation.yaml").write_text("runner: {target: 'gone_agent:run'}")
    try:
        Experiment(folder / "simulation.yaml", inputs=["a"]).run()
    except TargetError as error:
        print(error)
    shutil.rmtree(folder)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"'gone_agent' is imported from {tmp_path}/one/gone_agent.py already" in done.stdout


def test_a_span_looks_at_each_observation_once() -> None:
    """However often something below it updates it."""
    looked = 0

    class Counted(list[Any]):
        def __iter__(self) -> Any:
            nonlocal looked
            looked += len(self)
            return super().__iter__()

        def __getitem__(self, index: Any) -> Any:
            nonlocal looked
            found = super().__getitem__(index)
            looked += len(found) if isinstance(index, slice) else 1
            return found

    @fluxloop.tool()
    def tool(span: Any, number: int) -> None:
        span.update(metadata={"last": number})

    def agent(count: int) -> int:
        scope = recording()
        assert scope is not None
        scope[0].observations = Counted()
        with fluxloop.span("loop") as span:
            for number in range(count):
                tool(span, number)
        return looked

    trace = run_once(agent, 500)
    assert trace.observations[0].metadata == {"last": 499}
    assert trace.output <= 2 * 501
