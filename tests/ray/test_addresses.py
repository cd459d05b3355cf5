"""Where the cluster is: what is found there, or a plain word, soon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fluxloop import ConfigError, Experiment
from tests.ray.nodes import Nodes

pytestmark = pytest.mark.ray

PROGRAM = """
import os, sys
import crew, fluxloop

def told():
    result = fluxloop.Experiment(target="crew:where", inputs=["a"], executor="ray", parallel=1).run()
    (trace,) = result
    return trace.output

if __name__ == "__main__":
    import ray
    first = told()
    was_open = ray.is_initialized()
    ray.init(address=os.environ.pop("RAY_ADDRESS"), log_to_driver=False, logging_level="CRITICAL")
    second = told()
    print([first, second, was_open, ray.is_initialized()])
"""

SHARING = """
import logging, os, sys, threading
from pathlib import Path
import fluxloop

def run(target, address, parallel=1, **args):
    overrides = {"runner.ray.address": address, "runner.args": args}
    settings = {"executor": "ray", "parallel": parallel, "overrides": overrides}
    result = fluxloop.Experiment(target=target, inputs=["a"], **settings).run()
    return [trace.status for trace in result]

if __name__ == "__main__":
    here, other, place = sys.argv[1:]
    first = []
    thread = threading.Thread(target=lambda: first.extend(run("crew:gate", here, place=place)))
    thread.start()
    while thread.is_alive() and not os.path.exists(place):
        thread.join(0.01)
    second = run("crew:where", here, parallel=3)
    try:
        run("crew:where", other)
    except fluxloop.ConfigError as error:
        told = str(error)
    import ray
    was_open = ray.is_initialized()
    Path(place + ".go").touch()
    thread.join()
    left = [name for name in ("RAY_USAGE_STATS_ENABLED", "RAY_IGNORE_UNHANDLED_ERRORS") if name in os.environ]
    is_quiet = logging.getLogger("ray").level == logging.CRITICAL
    print([first, second, was_open, ray.is_initialized(), left, is_quiet, run("crew:where", here), told])
"""


@pytest.mark.parametrize("is_local", [False, True])
def test_experiments_of_a_process_share_a_cluster(two_nodes: Nodes, project: Path, is_local: bool) -> None:
    """The last ends the connection and leaves nothing set; to another cluster none can be made meanwhile."""
    (project / "program.py").write_text(SHARING)
    addresses = ("local", two_nodes.address) if is_local else (two_nodes.address, "local")
    done = subprocess.run(
        [sys.executable, "program.py", *addresses, str(project.parent / "notes")],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    )
    assert done.returncode == 0, done.stderr
    *found, told = eval(done.stdout.splitlines()[-1])
    assert found == [["ok"], ["ok"], True, False, [], False, ["ok"]]
    assert f"another experiment has connected this process to {addresses[0]}" in told


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nowhere", r"expected local, auto or HOST:PORT of the cluster's head, as head:6379, got 'nowhere'"),
        ("ray://head:10001", r"expected local, auto or HOST:PORT .* got 'ray://head:10001'"),
        ("head:port", r"expected local, auto or HOST:PORT .* got 'head:port'"),
        ("no-such-host.invalid:6379", r"no cluster answers at no-such-host.invalid:6379: .*is it running"),
    ],
)
def test_what_is_no_cluster_is_told(project: Path, address: str, told: str) -> None:
    """With the key, and what an address is."""
    with pytest.raises(ConfigError, match=rf"runner\.ray\.address: {told}"):
        Experiment(target="crew:nothing", inputs=["a"], executor="ray", overrides={"runner.ray.address": address}).run()


def test_a_port_where_nothing_listens_is_told(project: Path) -> None:
    """On the command line, with the code 2 and no experiment left behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        (project / "in.csv").write_text("input\na\n")
        arguments = ["--target", "crew:nothing", "--inputs", "in.csv", "--executor", "ray"]
        done = subprocess.run(
            [sys.executable, "-m", "fluxloop_cli", "run", "experiment", *arguments, "--no-progress"],
            capture_output=True,
            text=True,
            env={**os.environ, "RAY_ADDRESS": address},
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no cluster answers at {address}: Connection refused; is it running (`ray status`)?" in done.stderr


def test_the_environment_and_the_program_may_name_the_cluster(two_nodes: Nodes, project: Path) -> None:
    """A connection of the program's own is used, and stays; one by RAY_ADDRESS ends with the experiment."""
    (project / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "RAY_ADDRESS": two_nodes.address, "PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "nodes = " not in done.stdout
    first, second, was_open, is_open = eval(done.stdout.splitlines()[-1])
    assert {first, second} <= set(two_nodes.raylets)
    assert (was_open, is_open) == (False, True)
