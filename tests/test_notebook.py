"""Inside a real notebook kernel."""

from __future__ import annotations

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


def test_interrupting_the_kernel_gives_the_partial_result(notebook: Notebook) -> None:
    """The cell goes on after `run()` with what was done so far."""
    folder: Path = notebook.folder  # type: ignore[attr-defined]

    def interrupt() -> None:
        while not (folder / "started").exists():
            time.sleep(0.01)  # waits for the kernel, another process
        notebook.kernel.interrupt_kernel()

    text, kinds = notebook.run(
        "r = Experiment(target=slow, inputs=['a'], iterations=100_000, progress=False).run()\n"
        "print(r.summary.status, 0 < len(r) < 100_000, len(list(r)) == len(r))",
        interrupt,
    )
    assert "error" not in kinds
    assert text == "interrupted True True\n"
