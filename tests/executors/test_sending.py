"""What can be sent to a worker process, what cannot, and how a script is found there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, TargetError

FILES = {
    "started.py": """
from fluxloop import Experiment

class NotAWord(Exception):
    class Long(Exception):
        pass

class Word:
    def __init__(self, text):
        self.text = text

def agent(word):
    if word.text == "late":
        class Late(Exception):
            pass
        raise Late(word)
    if not word.text.isalpha():
        raise NotAWord(word.text)
    if len(word.text) > 9:
        raise NotAWord.Long(word.text)
    return [word.text.upper(), __name__, repr(Word)]

def run(executor):
    texts = ["hi", "h1", "much-too-long".replace("-", ""), "late"]
    inputs = [{"input": Word(text), "id": text, "expected": Word("x")} for text in texts]
    result = Experiment(target=agent, inputs=inputs, executor=executor, progress=False).run()
    return {trace.input_id: (trace.output, trace.error and trace.error.type) for trace in result}

if __name__ == "__main__":
    inline, there = run("inline"), run("processes")
    assert inline == there, (inline, there)
    print(sorted(map(str, there.values())))
""",
    "guardless.py": """
from fluxloop import Experiment
def agent(text):
    return text
open("imported", "a").write("x")
Experiment(target=agent, inputs=["a"], iterations=50, executor="processes", parallel=4).run()
""",
    "guardless_quiet.py": """
import sys
from fluxloop import Experiment, FluxloopError
def agent(text):
    return text
try:
    Experiment(target=agent, inputs=["a"], executor="processes", progress=False).run()
except FluxloopError as error:
    sys.exit(f"Oh no: {error}")
""",
    "guardless_by_name.py": """
from fluxloop import Experiment
open("imported", "a").write("x")
result = Experiment(target="an_agent:run", inputs=["a", "b"], executor="processes", parallel=2, progress=False).run()
print([trace.output for trace in result])
""",
    "runs_itself.py": """
from fluxloop import Experiment
def agent(text):
    return text
open("imported", "a").write("x")
def start():
    return Experiment(target=agent, inputs=["a"], executor="processes", progress=False).run()
import sys
if "main" not in __name__ and "started_by" not in sys.modules:
    start()
""",
    "started_by.py": """
import started_by, runs_itself
from fluxloop import Experiment
if __name__ == "__main__":
    try:
        Experiment(target=runs_itself.agent, inputs=["a"], executor="processes", progress=False).run()
    except Exception as error:
        print(error)
""",
    "an_agent.py": "def run(text):\n    return text.upper()\n",
    "package/__init__.py": "",
    "package/script.py": """
from fluxloop import Experiment
from .words import upper
def agent(text):
    return upper(text)
if __name__ == "__main__":
    result = Experiment(target=agent, inputs=["a", "b"], executor="processes", parallel=2, progress=False).run()
    print(sorted(str(trace.output or trace.error) for trace in result))
""",
    "package/words.py": "def upper(text):\n    return text.upper()\n",
    "folder/script.py": """
from fluxloop import Experiment
from beside import upper
def agent(text):
    return upper(text)
if __name__ == "__main__":
    result = Experiment(
        target=agent, inputs=["a", "b"], executor="processes", parallel=2, progress=False,
        overrides={"runner.working_directory": "elsewhere"},
    ).run()
    print(sorted(str(trace.output or trace.error) for trace in result))
""",
    "folder/beside.py": "import os\ndef upper(text):\n    return [text.upper(), os.path.basename(os.getcwd())]\n",
    "folder/__main__.py": """
from fluxloop import Experiment
def agent(text):
    return text.upper()
if __name__ == "__main__":
    (trace,) = Experiment(target="__main__:agent", inputs=["a"], executor="processes", progress=False).run()
    print(trace.output)
""",
    "elsewhere/.keep": "",
    "test_agents.py": """
from fluxloop import Experiment
def agent(text):
    return text.upper()
def test_agent(tmp_path):
    result = Experiment(target=agent, inputs=["a"], executor="processes", output_dir=tmp_path, progress=False).run()
    assert [trace.output for trace in result] == ["A"]
""",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with programs in it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, *arguments], input=given, capture_output=True, text=True, timeout=60, env=environment
    )


def nothing_left(folder: Path) -> bool:
    return not any((folder / "experiments").glob("*"))


# What a program starts


def test_a_script_gives_the_same_records(folder: Path) -> None:
    """What it defines says of itself what it says where it was started, though each worker imports it anew."""
    done = python("started.py")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        str(
            [
                "(None, 'NotAWord')",
                "(None, 'NotAWord.Long')",
                "(None, 'agent.<locals>.Late')",
                "(['HI', '__main__', \"<class '__main__.Word'>\"], None)",
            ]
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-m", "package.script"], "['A', 'B']"),
        (["folder/script.py"], """["['A', 'elsewhere']", "['B', 'elsewhere']"]"""),
        (["folder"], "A"),
        (["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_agents.py"], None),
    ],
)
def test_workers_find_what_was_started(
    arguments: list[str], shown: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module with relative imports, a script of another folder, a folder, a test."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # which are for the tests around this one
    done = python(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown is None or (done.stdout, done.stderr) == (shown + "\n", "")


def test_an_agent_that_is_named_needs_no_script(folder: Path) -> None:
    """Then no worker imports the script, and it needs no guard."""
    done = python("guardless_by_name.py")
    assert (done.stdout, done.stderr) == ("['A', 'B']\n", "")
    assert (folder / "imported").read_text() == "x"


@pytest.mark.parametrize("name", ["guardless.py", "guardless_quiet.py"])
def test_a_script_without_guard_is_told_of_it(name: str, folder: Path) -> None:
    """Once, whatever it makes of the error itself, and after one import by each worker at most."""
    done = python(name)
    assert done.returncode == 1
    told = f"{folder / name} starts an experiment when it is imported, as each worker process does"
    assert (done.stdout + done.stderr).count(told) == 1
    assert done.stderr.rstrip().endswith('put what starts it below `if __name__ == "__main__":`')
    assert done.stderr.count("Traceback") == (name == "guardless.py")
    assert nothing_left(folder)
    if name == "guardless.py":
        assert len((folder / "imported").read_text()) <= 5


def test_a_module_that_runs_itself_starts_no_workers_of_workers(folder: Path) -> None:
    """The worker that imports it for the agent refuses its experiment."""
    done = python("started_by.py")
    assert "the agent's module starts an experiment when it is imported" in done.stdout, done.stdout + done.stderr
    assert len((folder / "imported").read_text()) == 2


TYPED = """
from fluxloop import Experiment
def agent(text):
    return text
Experiment(target=agent, inputs=["a"], executor="processes", progress=False).run()
"""


@pytest.mark.parametrize(("arguments", "given"), [(["-c", TYPED], None), (["-"], TYPED), (["-i"], TYPED)])
def test_what_is_typed_at_a_prompt_is_refused(arguments: list[str], given: str | None, folder: Path) -> None:
    """No other process can find it; the way out is named."""
    told = python(*arguments, given=given.replace("text\n", "text\n\n") if given else None).stderr
    assert "TargetError: runner.target: agent is defined in a notebook or at a prompt, where no other process" in told
    assert "put it into a module, at its top level, and import it from there; or use the executor threads" in told
    assert nothing_left(folder)


# What cannot be sent


def local() -> Callable[[str], str]:
    def agent(text: str) -> str:
        return text

    return agent


class Held:
    """Holds what no other process can have."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def run(self, text: str) -> str:
        return text


def joined(prefix: Any, text: str) -> str:
    return f"{prefix}{text}"


class Local:
    @staticmethod
    def made() -> type:
        class Inner:
            def run(self, text: str) -> str:
                return text

        return Inner


MODULE = "put it into a module, at its top level, and import it from there; or use the executor threads"
FACTORY = "name a factory in a module that makes it, as module:factory(); or use the executor threads"
IN_THE_AGENT = "pass what it is made from, and make it in the agent; or use the executor threads"
A_LAMBDA = f"a lambda has no name to be found by; write it with `def`, and {MODULE}"
A_LOCAL = f"it is defined inside a function, where no other process can find it; {MODULE}"
A_LOCK = f"TypeError: cannot pickle '_thread.lock' object; {FACTORY}"

REFUSED = {
    "lambda": (lambda text: text, f"<lambda> cannot be sent to another process: {A_LAMBDA}"),
    "closure": (local(), f"local.<locals>.agent cannot be sent to another process: {A_LOCAL}"),
    "class": (Local.made(), f"Local.made.<locals>.Inner cannot be sent to another process: {A_LOCAL}"),
    "object": (
        Local.made()(),
        f"an object of class Local.made.<locals>.Inner cannot be sent to another process: {A_LOCAL}",
    ),
    "method": (Held().run, f"Held.run cannot be sent to another process: {A_LOCK}"),
    "holder": (Held(), f"an object of class Held cannot be sent to another process: {A_LOCK}"),
    "partial": (
        partial(lambda one, text: text, 1),
        f"a partial of <lambda> cannot be sent to another process: {A_LAMBDA}",
    ),
    "partial with": (
        partial(joined, Held()),
        f"a partial of joined cannot be sent to another process: {A_LOCK}",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("look", ["preview", "run"])
def test_what_cannot_be_sent_is_refused(what: str, look: str, folder: Path) -> None:
    """Before anything starts, also when it is only looked at; what to do is said, and nothing is left behind."""
    target, told = REFUSED[what]
    one = Experiment(target=target, inputs=["a"], executor="processes", progress=False)
    with pytest.raises(TargetError) as error:
        getattr(one, look)()
    assert str(error.value) == f"runner.target: {told}"
    assert nothing_left(folder)


def test_what_cannot_be_sent_runs_in_threads(folder: Path) -> None:
    """As the message says."""
    for target, _ in REFUSED.values():
        (trace,) = Experiment(target=target, inputs=["a"], executor="threads", progress=False).run()
        assert trace.output.endswith("a")


def test_an_argument_that_cannot_be_sent_is_refused(folder: Path) -> None:
    """With its key."""
    one = Experiment(
        target=joined,
        inputs=["a"],
        executor="processes",
        overrides={"runner.args": {"prefix": threading.Lock()}},
        progress=False,
    )
    with pytest.raises(TargetError) as error:
        one.run()
    assert str(error.value) == (
        "runner.args.prefix: an object of class lock cannot be sent to another process: "
        f"TypeError: cannot pickle '_thread.lock' object; {IN_THE_AGENT}"
    )
    assert nothing_left(folder)


def test_a_partial_of_a_module_s_function_can_be_sent(folder: Path) -> None:
    """With what it holds."""
    (trace,) = Experiment(target=partial(joined, os.path), inputs=["a"], executor="threads", progress=False).run()
    assert trace.status == "ok"
    (trace,) = Experiment(target=partial(joined, "> "), inputs=["a"], executor="processes", progress=False).run()
    assert trace.output == "> a"
