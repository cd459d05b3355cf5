"""What a user must know reaches the screen, whatever becomes of Python's warnings."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest

from fluxloop import Experiment
from fluxloop.notices import notice, notices_to
from fluxloop.testing import run_once
from tests.noticing import noticed


class Sticky:
    """Cannot be left, and may make errors of warnings before."""

    def __enter__(self) -> Sticky:
        return self

    def __exit__(self, *error: object) -> None:
        raise ConnectionError("already gone")

    def run(self, text: str) -> str:
        if text == "strict":
            warnings.simplefilter("error")
        return text


@pytest.mark.parametrize("text", ["strict", "a"])
@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_no_filter_of_warnings_makes_an_error_of_a_notice(executor: str, text: str, tmp_path: Path) -> None:
    """Neither one that an agent sets nor `-W error`; the experiment is done."""
    with warnings.catch_warnings(), noticed("leaving the target failed: .*ConnectionError: already gone"):
        warnings.simplefilter("error")
        result = Experiment(target=Sticky, inputs=[text, "b"], executor=executor, output_dir=tmp_path).run()
    assert (result.summary.status, result.exit_code, result.summary.passed) == ("completed", 0, 2)


def test_a_notice_outside_an_experiment_stands_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """As that of an agent run once."""
    assert run_once(Sticky, "a").output == "a"
    assert capsys.readouterr().err.startswith("[WARN] leaving the target failed: ")


def test_notices_of_two_experiments_at_a_time_are_kept_apart() -> None:
    """Each goes where the context leads that it is given in."""
    shown: dict[str, list[str]] = {"a": [], "b": []}
    met = threading.Barrier(2)

    def work(name: str) -> None:
        with notices_to(shown[name].append):
            met.wait(10)
            notice(f"of {name}")
            met.wait(10)

    threads = [threading.Thread(target=work, args=(name,)) for name in shown]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown == {"a": ["of a"], "b": ["of b"]}
