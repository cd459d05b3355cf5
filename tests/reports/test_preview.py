"""What an experiment would do, as text."""

from __future__ import annotations

from fluxloop.reports.preview import Preview


def test_what_there_is_nothing_of_has_no_line() -> None:
    """A shard and a resume are told only where there is one."""
    plain = Preview(
        inputs=2, iterations=3, runs=6, target="a:run", binding="input → text", executor="inline", output="o"
    )
    assert [line.split()[0] for line in str(plain).splitlines()] == [
        *("inputs", "iterations", "runs", "target", "binding", "executor", "output")
    ]
    told = Preview(
        inputs=2,
        iterations=3,
        runs=3,
        shard="1 of 2: 3 of 6 runs",
        resumed="1 of 3 runs are done, 2 are left",
        target="a:run",
        binding="input → text",
        executor="inline",
        output="o",
    )
    added = set(str(told).splitlines()) - set(str(plain).splitlines())
    assert added == {
        "runs        3",
        "shard       1 of 2: 3 of 6 runs",
        "resumes     1 of 3 runs are done, 2 are left",
    }
