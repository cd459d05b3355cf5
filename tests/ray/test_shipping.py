"""The project goes to the machines of a cluster, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fluxloop
from fluxloop import ConfigError, TargetError
from tests.ray.conftest import Run, command
from tests.ray.nodes import Nodes

pytestmark = pytest.mark.ray

PACKAGE = """
import os
from pathlib import Path

import beside
from mine.words import WORD

def run(text):
    here = Path.cwd()
    root = next(place for place in (here, *here.parents) if (place / "mine").exists())
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {
        "words": [WORD, beside.WORD, Path("data/words.txt").read_text()],
        "here": str(here.relative_to(root)),
        "files": files,
        "is_a_copy": str(root) != os.environ.get("CREW_ROOT"),
    }
"""
SCRIPT = """
import sys
from pathlib import Path

import fluxloop
from mine.words import WORD

def agent(text):
    return [WORD, Path("work/data/words.txt").read_text(), __name__]

if __name__ == "__main__":
    fluxloop.Experiment(
        target=agent, inputs=["a", "b"], executor="ray", parallel=1, overrides={"runner.ray.address": sys.argv[1]}
    ).run()
"""


@pytest.fixture
def package(project: Path) -> Path:
    """A project with all that projects have."""
    files = {
        "mine/__init__.py": "",
        "mine/words.py": "WORD = 'packaged'\n",
        "mine/agent.py": PACKAGE,
        "lib/beside.py": "WORD = 'beside'\n",
        "work/data/words.txt": "read",
        "script.py": SCRIPT,
        "in.csv": "input\na\n",
        ".git/config": "[core]\n",
        ".venv/bin/python": "",
        "venv/bin/python": "",
        "node_modules/one.js": "",
        "experiments/old/traces.jsonl": "",
        "mine/experiments/plan.txt": "",
        ".env": "TOKEN=sk-secret",
        "mine/.env.local": "TOKEN=sk-secret",
        "large.bin": "ignored",
        ".gitignore": "*.bin\n",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


def latest(project: Path) -> fluxloop.ExperimentResult:
    return fluxloop.load(max(project.glob("experiments/*_*"), key=os.path.getmtime))


def test_the_project_is_as_it_is_here(two_nodes: Nodes, package: Path) -> None:
    """Packages, folders of `python_path`, `working_directory` and files beside; not what is made or installed there."""
    options = ["--target", "mine.agent:run", "--inputs", "in.csv", "--set", "runner.working_directory=work"]
    options += ["--set", "runner.python_path=[lib]", "--no-progress"]
    done = subprocess.run(command(two_nodes, *options), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (trace,) = latest(package)
    files = ["in.csv", "lib/beside.py", "mine/__init__.py", "mine/agent.py", "mine/experiments/plan.txt"]
    files += ["mine/words.py", "script.py"]
    assert trace.output["words"] == ["packaged", "beside", "read"]
    assert trace.output["here"] == "work"
    assert sorted({*trace.output["files"]} - {".gitignore", "crew.py"}) == [*files, "work/data/words.txt"]


def test_the_agent_may_be_in_the_script(two_nodes: Nodes, package: Path) -> None:
    """That has a guard; workers import it from where the project is there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py", two_nodes.address], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {str(trace.output) for trace in latest(package)} == {"['packaged', 'read', '__main__']"}


def test_a_script_outside_of_the_project_is_refused(two_nodes: Nodes, package: Path) -> None:
    """With where to put it."""
    script = (package / "script.py").rename(package.parent / "script.py")
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, script, two_nodes.address], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    told = f"TargetError: {script.resolve()}, in which the agent is defined, is outside of the project {package}"
    assert told in done.stderr
    assert done.stderr.rstrip().endswith("put it into the project")


@pytest.mark.parametrize("key", ["runner.python_path", "runner.working_directory"])
def test_folders_outside_of_the_project_are_refused(run: Run, project: Path, key: str) -> None:
    """They are named, with what to do."""
    (project.parent / "outside").mkdir()
    told = rf"{key}: \S+ is outside of the project \S+, which is all that is sent to the cluster: put it into"
    with pytest.raises(ConfigError, match=told):
        run("crew:nothing", "a", overrides={key: ["../outside"] if key == "runner.python_path" else "../outside"})


def test_too_large_a_project_is_refused(two_nodes: Nodes, project: Path) -> None:
    """In our words, and with the code 2."""
    (project / "large.dat").write_bytes(os.urandom(3 << 20))
    (project / "in.csv").write_text("input\na\n")
    environment = {**os.environ, "RAY_max_grpc_message_size": str(2 << 20)}
    done = subprocess.run(
        command(two_nodes, "--target", "crew:nothing", "--inputs", "in.csv", "--no-progress"),
        capture_output=True,
        text=True,
        env=environment,
    )
    told = f"the project {project} is larger than Ray sends to a cluster: name what workers do not need in its"
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr.replace("\n", " ")


def test_another_version_of_fluxloop_there_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions are named."""
    monkeypatch.setattr("fluxloop.executors.remote.relayed.__version__", "0.0.1")
    told = rf"\S+ has fluxloop {fluxloop.__version__}, and 0\.0\.1 is what runs the experiment: install the same on all"
    with pytest.raises(TargetError, match=told):
        run("crew:nothing", "a", "b")
