"""The executor ray where Ray is not installed, and its parts that need none."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import fluxloop
from fluxloop.executors.remote import messages, reaper
from fluxloop.executors.remote.local import LocalWorkers
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relay import Relay, chunk, unpack
from fluxloop.interrupt import Abandoned
from fluxloop_cli.main import main
from tests.waiting import wait_until


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


def preparation(task: object) -> Preparation:
    return Preparation(script=None, argv=[], import_path=sys.path, directory=Path.cwd(), task=pickle.dumps(task))


class Hanging:
    """What takes long to be unpickled."""

    def __reduce__(self) -> object:
        return time.sleep, (1000,)


class Failing:
    """What cannot be unpickled."""

    def __reduce__(self) -> object:
        return int, ("no number",)


def test_a_worker_that_fails_and_ends_at_once_costs_no_other() -> None:
    """Though its relay hears of both together."""
    relay = Relay(fluxloop.__version__, None, preparation(Failing()))
    relay.tell(chunk([(1, messages.START, b"")]))
    relay._obey()
    wait_until(relay._links[1].has_ended)
    (kinds,) = ([kind for _, kind, _ in unpack(said)] for said in list(relay.hear(1))[1:])
    relay._workers.close([])
    assert kinds == [messages.FAILED, messages.GONE]
    assert relay._links == relay._numbers == {}


def test_an_end_that_is_abandoned_leaves_nothing_behind() -> None:
    """The workers that it waits for are killed, and the guard and the sockets closed."""
    workers = LocalWorkers(preparation(Hanging()))
    link = workers.start()
    os.kill(link._process.pid, signal.SIGSTOP)  # it hears of no end

    def abandon(*told: object) -> None:
        raise Abandoned

    before = signal.signal(signal.SIGALRM, abandon)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Abandoned):
            workers.close([link])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert workers._guard is not None
    assert link._process.returncode == -signal.SIGKILL
    assert workers._guard._process.returncode is not None
    assert workers._selector.get_map() is None
    assert (workers._bell.fileno(), workers._ear.fileno()) == (-1, -1)


STARTS = """
import os, subprocess, sys
from fluxloop.executors.remote.reaper import children
ray = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
((pid, since),) = children(os.getpid())
assert pid == ray.pid
other = subprocess.Popen(["sleep", "1000"])
command = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), f"{pid}:{since}"]
reaper = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
print(ray.pid, int(ray.stdout.readline()), other.pid, reaper.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the reaper knows what runs from /proc")
def test_the_reaper_ends_what_ray_has_started_and_nothing_else() -> None:
    """Not what the program has started beside, and not before the program is gone, whatever signals come."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(reaper.__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ray, child, other, reaping = map(int, process.stdout.readline().split())
    try:
        wait_until(lambda: ignores(reaping, signal.SIGHUP))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last is the last it ignores
            os.kill(reaping, number)
        process.kill()
        process.wait()
        wait_until(lambda: not {ray, child, reaping} & set(reaper.processes()))
        assert other in reaper.processes()
    finally:
        os.kill(other, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()


def ignores(pid: int, number: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (number - 1) & 1)
