"""Inside a real notebook kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SETUP = """
import asyncio, pathlib, time
from fluxloop import Experiment

async def agent(text):
    await asyncio.sleep(0)
    return text

async def slow(text):
    pathlib.Path("started").touch()
    await asyncio.sleep(0.02)
    return text

def slow_sync(text):
    pathlib.Path("started").touch()
    time.sleep(0.02)
    return text

async def hang(text):
    pathlib.Path("started").touch()
    await asyncio.sleep(1000)

def hang_sync(text):
    pathlib.Path("started").touch()
    time.sleep(1000)
"""


class Notebook:
    """A kernel that runs cells and collects what they show."""

    def __init__(self, client: Any, kernel: Any) -> None:
        self._client = client
        self.kernel = kernel

    def run(self, code: str, meanwhile: Callable[[], None] | None = None) -> tuple[str, list[str]]:
        """Run a cell; return its text and the types of its messages."""
        asked = self._client.execute(code)
        if meanwhile:
            meanwhile()
        text, kinds = "", []
        while True:
            message = self._client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            kinds.append(kind)
            if kind == "stream":
                text += content["text"]
            elif kind in ("execute_result", "display_data"):
                text += str(content["data"])
            elif kind == "error":
                text += "".join(content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                return text, kinds


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    kernel, client = manager.start_new_kernel(kernel_name="python3", cwd=str(folder))
    opened = Notebook(client, kernel)
    opened.folder = folder  # type: ignore[attr-defined]
    text, _ = opened.run(SETUP)
    assert text == ""
    yield opened
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_run_works_in_a_cell_and_shows_a_table(notebook: Notebook) -> None:
    """`run()` of an async agent works although the kernel's loop runs, and the result shows as a table."""
    text, kinds = notebook.run("Experiment(target=agent, inputs=['a', 'b'], iterations=3).run()")

    assert "[INFO] Running 3 iterations per input (6 total runs)" in text
    assert "6 of 6 runs passed" in text
    assert "<table>" in text
    assert "execute_result" in kinds
    assert "Warning" not in text


def test_run_async_can_be_awaited_in_a_cell(notebook: Notebook) -> None:
    """`await experiment.run_async()` works at the top level of a cell."""
    text, _ = notebook.run(
        "r = await Experiment(target=agent, inputs=['a'], iterations=2, progress=False).run_async(); print(r)"
    )
    assert "2 of 2 runs passed" in text


@pytest.mark.parametrize("executor", ["inline", "asyncio", "threads"])
def test_what_a_cell_has_made_works_in_every_experiment(notebook: Notebook, executor: str) -> None:
    """A contended semaphore and a client's queue belong to one loop for good, whatever runs on the kernel's own."""
    notebook.run(
        "semaphore = asyncio.Semaphore(1)\n"
        "async def careful(text):\n"
        "    async with semaphore:\n"
        "        await asyncio.sleep(0.001)\n"
        "    return text"
    )
    options = f"target=careful, inputs=['a', 'b'], iterations=2, progress=False, executor={executor!r}"
    options += ", overrides={'runner.parallel': 3}" if executor != "inline" else ""
    for ask in ("Experiment({}).run()", "await Experiment({}).run_async()", "Experiment({}).run()"):
        text, _ = notebook.run(f"print({ask.format(options)})")
        assert "4 of 4 runs passed" in text


def test_what_a_run_prints_and_logs_is_kept_in_a_notebook(notebook: Notebook) -> None:
    """Also by a logger that an earlier cell made; what the notebook prints meanwhile and afterwards is shown."""
    text, _ = notebook.run(
        "import sys, threading\n"
        "from loguru import logger\n"
        "logger.remove()\n"
        "logger.add(sys.stderr, format='{message}', colorize=False)\n"
        "async def talking(text):\n"
        "    print('said', text)\n"
        "    logger.info('logged {}', text)\n"
        "    meanwhile.set()\n"
        "    await asyncio.to_thread(shown.wait)\n"
    )
    assert text == ""
    text, kinds = notebook.run(
        "meanwhile, shown = threading.Event(), threading.Event()\n"
        "running = asyncio.create_task(Experiment(target=talking, inputs=['a'], progress=False).run_async())\n"
        "await asyncio.to_thread(meanwhile.wait)\n"
        "print('mine')\n"
        "shown.set()\n"
        "kept = list(await running)[0]\n"
        "logger.info('after')\n"
        "print(type(sys.stdout).__name__, [kept.stdout, kept.stderr])"
    )
    assert "error" not in kinds, text
    assert sorted(text.splitlines()) == [r"OutStream ['said a\n', 'logged a\n']", "after", "mine"]


def interrupt_at_start(notebook: Notebook) -> Callable[[], None]:
    """What interrupts the kernel once an agent has started."""
    started: Path = notebook.folder / "started"  # type: ignore[attr-defined]
    started.unlink(missing_ok=True)

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.01)  # waits for the kernel, another process
        notebook.kernel.interrupt_kernel()

    return interrupt


EXECUTORS = [("", "asyncio"), ("_sync", "threads"), ("_sync", "inline")]


@pytest.mark.parametrize(("kind", "executor"), EXECUTORS)
def test_interrupting_the_kernel_gives_the_partial_result(notebook: Notebook, kind: str, executor: str) -> None:
    """The cell goes on after `run()` with what was done so far, and the next cell runs as ever."""
    parallel = 1 if executor == "inline" else 3
    text, kinds = notebook.run(
        f"r = Experiment(target=slow{kind}, inputs=['a'], iterations=100_000, progress=False,\n"
        f"               executor={executor!r}, parallel={parallel}).run()\n"
        "print(r.summary.status, r.summary.passed == len(r) == len(list(r)), 0 < len(r) < 100_000, r.left_running)",
        interrupt_at_start(notebook),
    )
    assert "error" not in kinds
    assert text.splitlines()[-1] == "interrupted True True 0"
    text, _ = notebook.run(f"print(Experiment(target=slow{kind}, inputs=['a'], executor={executor!r}).run())")
    assert "1 of 1 runs passed" in text


@pytest.mark.parametrize(("kind", "executor"), EXECUTORS)
def test_interrupting_the_kernel_leaves_what_hangs(notebook: Notebook, kind: str, executor: str) -> None:
    """When the grace is over the cell has its result, though the agent has not ended."""
    text, kinds = notebook.run(
        f"r = Experiment(target=hang{kind}, inputs=['a', 'b'], progress=False, executor={executor!r},\n"
        "               overrides={'runner.grace_seconds': 0.1}).run()\n"
        "print(r.summary.status, len(r), r.summary.not_run, r.left_running)",
        interrupt_at_start(notebook),
    )
    assert "error" not in kinds
    assert text.splitlines()[-1] == "interrupted 0 2 1"


@pytest.mark.parametrize(("kind", "executor"), EXECUTORS)
def test_interrupting_the_kernel_cancels_what_a_cell_awaits(notebook: Notebook, kind: str, executor: str) -> None:
    """`await run_async()` hears of it while its runs go on, ends as cancelled, and says where the results are."""
    name = f"awaited_{executor}{kind}"
    text, kinds = notebook.run(
        f"await Experiment(target=slow{kind}, inputs=['a'], iterations=100_000, progress=False, name={name!r},\n"
        f"                 executor={executor!r}).run_async()",
        interrupt_at_start(notebook),
    )
    assert "error" in kinds
    assert "CancelledError" in text
    told = re.search(r"\[WARN\] Cancelled; (\d+) runs of 100000 not run\. What is done is in (\S+)", text)
    assert told
    text, _ = notebook.run(
        f"import fluxloop\nr = fluxloop.load({told[2]!r})\n"
        "print(r.summary.status, r.summary.not_run, 0 < len(r) == len(list(r)))"
    )
    assert text == f"interrupted {told[1]} True\n"


AGENT = """
import pathlib, time

async def agent(text):
    return text

def slow(text):
    pathlib.Path("started").touch()
    time.sleep(0.02)
    return text
"""


def test_a_function_of_the_notebook_is_refused_by_processes(notebook: Notebook) -> None:
    """No other process can import it; the way out is named, and nothing is left behind."""
    text, kinds = notebook.run(
        "Experiment(target=agent, inputs=['a'], name='refused', executor='processes', progress=False).run()"
    )
    assert "error" in kinds
    assert "runner.target: agent is defined in a notebook or at a prompt, where no other process can find it" in text
    assert "put it into a module, at its top level, and import it from there" in text
    text, _ = notebook.run("print(list(pathlib.Path('experiments').glob('refused*')))")
    assert text == "[]\n"


def test_processes_run_what_a_notebook_imports(notebook: Notebook) -> None:
    """A module beside it, sync or async, also awaited in a cell; interrupting the kernel gives what is done."""
    (notebook.folder / "an_agent.py").write_text(AGENT)  # type: ignore[attr-defined]
    text, _ = notebook.run(
        "import an_agent\n"
        "options = dict(inputs=['a', 'b'], executor='processes', parallel=2, progress=False)\n"
        "print(Experiment(target=an_agent.agent, **options).run())\n"
        "print(await Experiment(target='an_agent:slow', **options).run_async())"
    )
    assert text.count("2 of 2 runs passed") == 2, text
    text, kinds = notebook.run(
        "r = Experiment(target=an_agent.slow, iterations=100_000, **options).run()\n"
        "print(r.summary.status, r.summary.passed == len(r) == len(list(r)), 0 < len(r) < 100_000, r.left_running)",
        interrupt_at_start(notebook),
    )
    assert "error" not in kinds
    assert text.splitlines()[-1] == "interrupted True True 0"
