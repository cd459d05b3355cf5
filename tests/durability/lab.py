"""A process that has fluxloop in memory and forks a fresh command line from it for each order."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command line came to."""

    code: int
    """Below zero: the signal that ended it."""
    told: str
    """Its standard error."""
    said: str
    steps: tuple[tuple[str, str, bool], ...] = ()
    """Each change to the files: what, where, and whether it was done."""


class Command:
    """A command line under way."""

    def __init__(self, lab: Lab, pid: int, place: Path) -> None:
        self._lab, self.pid, self._place = lab, pid, place
        self.journal = place / "journal"
        """A line a step, for one that was given faults."""
        self.ready = place / "ready"
        """There once it waits at its gate."""

    def kill(self) -> None:
        """End it at once; nothing for one that has ended by itself."""
        os.kill(self.pid, 9)

    def has_ended_or(self, holds: Callable[[], bool]) -> bool:
        """Tell whether it holds, or never will."""
        with open(f"/proc/{self.pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z" or holds()

    def told_so_far(self) -> str:
        """Return what stands on its standard error."""
        return (self._place / "err").read_text()

    def wait(self) -> Done:
        """Wait for its end."""
        code = self._lab.ask(do="wait", pid=self.pid)["code"]
        told, said = (self._place / name for name in ("err", "out"))
        steps = []
        for line in self.journal.read_text().splitlines():
            _, what, where, done = line.split("\t")
            steps.append((what, where, done == "done"))
        return Done(code, told.read_text(), said.read_text(), tuple(steps))


class Lab:
    """Start command lines in a project.

    Args:
        project: where they start, unless told otherwise.
        notes: a folder for what they print.
    """

    def __init__(self, project: Path, notes: Path) -> None:
        self.project = project
        self._notes = notes
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self,
        *arguments: str,
        faults: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        gate: Path | None = None,
        script: str | None = None,
        cwd: Path | None = None,
    ) -> Command:
        """Start `fluxloop` with arguments.

        Args:
            faults: as `Faults` takes them.
            environment: what it has beside the variables of this process.
            gate: a file; it does not go on before that is taken away.
            script: Python to run in its place.
            cwd: where it starts.
        """
        self._number += 1
        place = self._notes / str(self._number)
        place.mkdir()
        for name in ("out", "err", "journal"):
            (place / name).touch()
        told = None if faults is None else {"journal": str(place / "journal"), **faults}
        answer = self.ask(
            do="start",
            arguments=arguments,
            project=str(cwd or self.project),
            place=str(place),
            faults=told,
            environment={**os.environ, **(environment or {})},
            gate=None if gate is None else str(gate),
            script=script,
        )
        return Command(self, answer["pid"], place)

    def run(self, *arguments: str, **options: Any) -> Done:
        """Start it and wait for its end."""
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def laboratory(project: Path, notes: Path) -> Iterator[Lab]:
    """Close it in the end, with whatever is under way in it."""
    lab = Lab(project, notes)
    try:
        yield lab
    finally:
        lab.close()


def _become(order: Mapping[str, Any]) -> None:
    """Be a command line as a shell starts it."""
    from tests.durability.faults import Faults

    place = order["place"]
    for number, (name, mode) in enumerate(((os.devnull, os.O_RDONLY), *((f"{place}/{n}", 0) for n in ("out", "err")))):
        handle = os.open(name, mode or os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(order["project"])
    sys.path[0] = os.getcwd()
    sys.argv = ["fluxloop", *order["arguments"]]
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["gate"]:
        Path(place, "ready").touch()
        while os.path.exists(order["gate"]):
            time.sleep(0)
    if order["faults"]:
        Faults(**order["faults"]).install()
    if order["script"]:
        sys.argv = ["script", *order["arguments"]]
        exec(compile(order["script"], "script", "exec"), {"__name__": "__main__"})
        return
    from fluxloop_cli.main import main

    main(args=order["arguments"], prog_name="fluxloop")


def _code(order: Mapping[str, Any]) -> int:
    try:
        _become(order)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    # To take down what the lab had imported would cost ten times what the command line did.
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:  # an agent may do that
            stream.flush()
    os._exit(code)


def _serve() -> None:
    sys.path[0] = str(ROOT)
    sys.dont_write_bytecode = True  # an agent that is written anew within a second would be the old one
    import fluxloop.reports.rows
    import fluxloop.tracing.decorators
    import fluxloop.verifying
    import fluxloop_cli.run
    import fluxloop_cli.verify  # noqa: F401
    import tests.durability.faults  # noqa: F401
    from fluxloop import Experiment

    # What is made at first use, such as converters, need not be made again by each.
    with tempfile.TemporaryDirectory() as place:
        settings = {"runner": {"parallel": 2}}
        Experiment(settings, target=str.upper, inputs=["hi"], seed=1, output_dir=f"{place}/first").preview()
        done = Experiment(target=str.upper, inputs=["hi"], seed=1, output_dir=f"{place}/second").run()
        fluxloop.verifying.verify(done.path)
    assert threading.active_count() == 1, "a thread would be missing in each fork"

    # A collection in a fork would touch, and so copy, all of this.
    gc.collect()
    gc.freeze()
    under_way = set()
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        if order["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _end(_code(order))
            under_way.add(pid)
            answer = {"pid": pid}
        else:
            _, status = os.waitpid(order["pid"], 0)
            under_way.discard(order["pid"])
            answer = {"code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(answer), flush=True)
    for pid in under_way:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve()
