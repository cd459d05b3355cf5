"""`fluxloop verify`: sound directories are sound, damage is found where it is, and a resume does what was said."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fluxloop
from fluxloop import Experiment, OutputError, UsageError
from fluxloop.store.lock import DirectoryLock
from fluxloop.verifying import Verification, verify
from fluxloop_cli.main import main
from tests.waiting import wait_until

LINES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
INPUTS: list[Any] = ["hello", {"input": "fail", "persona": "expert"}, "down", {"input": "naïve", "source_id": "one"}]
ITERATIONS = 4
TOTAL = 16


@fluxloop.tool
def look_up(text: str) -> str:
    return text.upper()


@fluxloop.agent
def agent(text: str) -> str:
    if text == "fail":
        raise ValueError("cannot")
    if text == "down":
        raise ConnectionError("no server")
    return look_up(text)


def run(folder: Path, called: str, **options: Any) -> Path:
    """An experiment in a folder of this name."""
    options = {"iterations": ITERATIONS, "seed": 42, "name": called, "output_dir": folder, **options}
    return Experiment(target=agent, inputs=INPUTS, **options).run().path.rename(folder / called)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments of every kind, all of them as they should be."""
    folder = tmp_path_factory.mktemp("made")
    run(folder, "complete")
    run(folder, "interrupted", max_failures=5)
    run(folder, "resumed", max_failures=5)
    Experiment.resume(folder / "resumed", agent, INPUTS, max_failures=100).run()
    run(folder, "superseded")
    Experiment.resume(folder / "superseded", agent, INPUTS, retry_failed="failed").run()
    Experiment.resume(folder / "superseded", agent, INPUTS, retry_failed="all", max_failures=5).run()
    for index in (1, 2, 3):
        run(folder, f"shard{index}", shard=f"{index}/3", name="sharded")
    fluxloop.merge([folder / f"shard{index}" for index in (1, 2, 3)], folder / "merged")
    run(folder, "renumbered", max_failures=5)
    Experiment.resume(folder / "renumbered", agent, ["new", *INPUTS], force=True, max_failures=5).run()
    for name, changes in {
        "reseeded": {"seed": 7},
        "fewer": {"iterations": 1},
        "resharded": {"shard": "1/2"},
    }.items():
        run(folder, name, max_failures=5)
        Experiment.resume(folder / name, agent, INPUTS, force=True, max_failures=100, **changes).run()
    return folder


KINDS = (
    *("complete", "interrupted", "resumed", "superseded", "shard1", "shard2", "shard3", "merged", "renumbered"),
    *("reseeded", "fewer", "resharded"),
)


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of each."""
    for path in made.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: object) -> Result:
    """Call `fluxloop verify`; what it does not catch fails the test."""
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], catch_exceptions=False)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def change(path: Path, **changes: Any) -> None:
    """Put other values into the summary."""
    told = json.loads((path / "summary.json").read_text())
    told.update(changes)
    (path / "summary.json").write_text(json.dumps(told))


def rewrite(path: Path, number: int, **changes: Any) -> None:
    """Put other values into a run, in all three files alike."""
    for name in LINES:
        found = [json.loads(line) for line in lines(path / name)]
        old = json.loads(lines(path / "traces.jsonl")[number])["trace_id"] if name == LINES[0] else None
        for index, record in enumerate(found):
            if name == LINES[0]:
                if record["trace_id"] == old and "trace_id" in changes:
                    record["trace_id"] = changes["trace_id"]
            elif index == number:
                record.update(changes)
                for one in record.get("observations", []):
                    one["trace_id"] = record["trace_id"]
        text = "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in found)
        (path / name).write_text(text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_as_it_should_be_is_sound(folder: Path, kind: str) -> None:
    """However it came about: nothing is found, the exit code is 0, and no byte is changed."""
    path = folder / kind
    before = content(path)
    told = invoke(kind)
    runs = len(lines(path / "traces.jsonl"))
    assert told.exit_code == 0, told.output
    first, second = told.output.splitlines()
    assert first == f"{runs} run{'' if runs == 1 else 's'} {'is' if runs == 1 else 'are'} whole in all files"
    left = json.loads((path / "summary.json").read_text())["not_run"]
    expected = f"run {left} of {runs + left} runs" if left else f"run nothing: all {runs} runs are done"
    assert second == f"resume would {expected}{GIVEN}"
    assert str(fluxloop.load(path).verify()) + "\n" == told.output
    assert content(path) == before


def test_another_machine_finds_the_same(folder: Path) -> None:
    """Neither installed packages' places nor the last digit of a figure makes a sound directory wrong."""
    path = folder / "complete"
    told = json.loads((path / "summary.json").read_text())
    for group in told["errors"]:
        group["place"] = "/elsewhere/agent.py:7"
    told["pass_rate"]["low"] *= 1 + 1e-14
    change(path, **told)
    assert verify(path).is_sound
    told["pass_rate"]["low"] *= 1.001
    change(path, **told)
    assert "pass_rate is " in str(verify(path))


def test_a_configuration_may_name_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they hold here is of no matter."""
    path = folder / "complete"
    text = (path / "config.yaml").read_text()
    for name, value in {"seed": "42", "iterations": "4", "timeout_seconds": "null"}.items():
        assert f"{name}: {value}\n" in text
        text = text.replace(f"{name}: {value}\n", f"{name}: ${{NOWHERE}}\n", 1)
    (path / "config.yaml").write_text(text)
    assert verify(path).is_sound, str(verify(path))
    rewrite(path, 0, seed=1)
    assert "trace_001: seed 1, where config.yaml gives" in str(verify(path))


def nul(path: Path, name: str) -> None:
    found = lines(path / name)
    found[4] = b"\0" * len(found[4])
    (path / name).write_bytes(b"".join(found))


def lose(path: Path, name: str) -> None:
    found = lines(path / name)
    del found[4]
    (path / name).write_bytes(b"".join(found))


def repeat(path: Path, name: str) -> None:
    found = lines(path / name)
    found.insert(5, found[4])
    (path / name).write_bytes(b"".join(found))


def orphan(path: Path) -> None:
    second = json.loads(lines(path / LINES[0])[1])
    old = f'"id":"{second["id"]}","trace_id":"{second["trace_id"]}","parent_id":"{second["parent_id"]}"'
    for name in LINES[:2]:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, old.replace(second["parent_id"], "gone")))


def twin(path: Path) -> None:
    one, two = (json.loads(line)["id"] for line in lines(path / LINES[0])[:2])
    for name in LINES[:2]:
        (path / name).write_text((path / name).read_text().replace(f'"id":"{two}"', f'"id":"{one}"'))


def half_rewritten(path: Path) -> None:
    (path / ".rewrite").mkdir()
    for name in LINES:
        shutil.copy(path / name, path / ".rewrite" / name)


def append(path: Path, name: str, text: bytes) -> None:
    with (path / name).open("ab") as file:
        file.write(text)


REFUSE = "refuse, because no crash leaves such files"
GIVEN = "; to be given again: target, inputs"
DONE = f"run nothing: all 16 runs are done{GIVEN}"
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "bad observation": (lambda path: nul(path, LINES[0]), "observations.jsonl:5: NUL bytes", REFUSE),
    "bad trace": (lambda path: nul(path, LINES[1]), "traces.jsonl:5: NUL bytes where a record belongs", REFUSE),
    "bad summary line": (lambda path: nul(path, LINES[2]), "trace_summary.jsonl:5: NUL bytes", REFUSE),
    "lost observation": (lambda path: lose(path, LINES[0]), "observations.jsonl:5: an observation of", REFUSE),
    "lost trace": (lambda path: lose(path, LINES[1]), "traces.jsonl:5: trace_006 where trace_005 belongs", REFUSE),
    "lost summary line": (
        lambda path: lose(path, LINES[2]),
        "trace_summary.jsonl:5: trace_006 where trace_005",
        REFUSE,
    ),
    "doubled observation": (lambda path: repeat(path, LINES[0]), "observations.jsonl:6: an observation of", REFUSE),
    "doubled trace": (lambda path: repeat(path, LINES[1]), "traces.jsonl:6: trace_005 where trace_006 belongs", REFUSE),
    "doubled run": (lambda path: [repeat(path, name) for name in LINES[1:]], "observations.jsonl", REFUSE),
    "doubled id": (
        lambda path: rewrite(path, 4, trace_id="trace_004"),
        "traces.jsonl:5: trace_004 stands here a second time",
        REFUSE,
    ),
    "endless id": (
        lambda path: rewrite(path, 4, trace_id=f"trace_{10**17}"),
        "traces.jsonl:5: expected a trace id as",
        REFUSE,
    ),
    "foreign id": (lambda path: rewrite(path, 4, trace_id="run_5"), "traces.jsonl:5: expected a trace id as", REFUSE),
    "differing": (
        lambda path: (path / LINES[2]).write_text((path / LINES[2]).read_text().replace("HELLO", "HALLO")),
        "trace_summary.jsonl:1: trace_001 differs from the line in traces.jsonl, in output",
        f"run 4 of 16 runs{GIVEN}",
    ),
    "other iteration": (
        lambda path: rewrite(path, 4, iteration=2, seed=0),
        "traces.jsonl:5: trace_005: iteration 2, where its id is of 1",
        REFUSE,
    ),
    "iteration out of range": (
        lambda path: rewrite(path, 4, iteration=9),
        "traces.jsonl:5: trace_005: iteration 9 of 4, from 0",
        REFUSE,
    ),
    "seed": (lambda path: rewrite(path, 4, seed=7), "traces.jsonl:5: trace_005: seed 7, where config.yaml gives", DONE),
    "input": (lambda path: rewrite(path, 4, input_index=3), "traces.jsonl:5: trace_005: an input at 3, where", DONE),
    "parent": (orphan, "which is not there", DONE),
    "observation id": (twin, "traces.jsonl:1: trace_001: two observations have one id", DONE),
    "kind": (
        lambda path: rewrite(path, 4, expected=1, stdout=7),
        "traces.jsonl:5: trace_005: Expected `str | null`",
        DONE,
    ),
    "count": (lambda path: change(path, passed=9), "summary.json: passed is 9, the files give 8", DONE),
    "errors": (lambda path: change(path, errors=[]), "summary.json: errors are 0 in all, the files give 8", DONE),
    "planned": (
        lambda path: change(path, planned=17, not_run=1),
        "summary.json: planned is 17, config.yaml gives 16",
        DONE,
    ),
    "running": (lambda path: change(path, status="running"), "summary.json: says running, though nobody", DONE),
    "no summary": (
        lambda path: (path / "summary.json").unlink(),
        "summary.json: No such file",
        "refuse: it cannot tell",
    ),
    "no JSON": (lambda path: (path / "summary.json").write_text("{"), "summary.json: ", "refuse: it cannot tell"),
    "no configuration": (
        lambda path: (path / "config.yaml").unlink(),
        "config.yaml: no such file",
        "refuse: it cannot",
    ),
    "no YAML": (
        lambda path: (path / "config.yaml").write_text("a: [\n"),
        "config.yaml:2:1: ",
        "refuse: it cannot tell",
    ),
    "unknown key": (
        lambda path: append(path, "config.yaml", b"runer: 1\n"),
        "runer: unknown key; did you mean 'runner'?",
        "refuse: it cannot tell",
    ),
    "another seed": (
        lambda path: (path / "config.yaml").write_text(
            (path / "config.yaml").read_text().replace("seed: 42", "seed: 4")
        ),
        "config.yaml: seed is another than in summary.json",
        "refuse: config.yaml and summary.json are not of one experiment, in seed",
    ),
    "no traces": (lambda path: (path / LINES[1]).unlink(), "traces.jsonl: No such file", REFUSE),
    "torn": (
        lambda path: append(path, LINES[1], b'{"trace'),
        "traces.jsonl:17: 7 bytes of runs that are not whole in all files",
        f"cut off 7 bytes, then {DONE}",
    ),
    "half rewritten": (half_rewritten, ".rewrite: a crash interrupted a resume that replaces failed runs", DONE),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_where_it_is(folder: Path, what: str) -> None:
    """Each kind, by file and line, with exit code 1; nothing is changed, and a resume does what was said."""
    path = folder / "complete"
    damage, told, resume = DAMAGES[what]
    damage(path)
    before = content(path)
    shown = invoke(path)
    assert shown.exit_code == 1, shown.output
    assert told in shown.output
    assert shown.output.startswith(f"{path}/"), "every finding begins with its file"
    assert f"{path}/{path}" not in shown.output
    assert f"resume would {resume}" in shown.output
    assert content(path) == before
    assert_resume_does_as_said(path, verify(path))


def assert_resume_does_as_said(path: Path, told: Verification) -> None:
    """Resume, and compare what happens with what was said."""
    asked = []

    def counting(text: str) -> Any:
        asked.append(text)
        return agent(text)

    counting.__qualname__, counting.__module__ = agent.__qualname__, agent.__module__
    before, resume = content(path), told.resume
    taken = partial(Experiment.resume, path, counting, INPUTS, max_failures=1000)
    if resume.startswith("refuse"):
        with pytest.raises(UsageError):
            taken().run()
        assert asked == []
        assert content(path) == before
        return
    result = taken().run()
    found = _RESUMED.fullmatch(resume)
    assert found, f"{resume}, but it ran {len(asked)}"
    assert len(asked) == int(found["left"] or 0)
    assert len(result) == int(found["all"] or found["done"])
    if not any(re.search(r":\d+: trace_\d+: ", str(one)) for one in told.findings):  # what stays wrong in a run
        assert verify(path).is_sound, str(verify(path))


_RESUMED = re.compile(
    r"(?:cut off \d+ bytes, then )?run (?:nothing: all (?P<done>\d+) runs? are done|(?P<left>\d+) of (?P<all>\d+) runs)"
    + GIVEN
)


def test_every_damaged_line_is_found(folder: Path) -> None:
    """Also after the first; of very many twenty are told, and the number of the rest."""
    path = folder / "complete"
    for name in LINES:
        found = lines(path / name)
        for number in (2, 5, 9):
            found[number] = b"{}\n"
        (path / name).write_bytes(b"".join(found))
    told = str(verify(path))
    for name in LINES:
        for number in (3, 6, 10):
            assert f"{path / name}:{number}: not a record" in told
    for name in LINES:
        (path / name).write_bytes(b"{}\n" * 30 + lines(path / name)[-1])
    verification = verify(path)
    assert len(verification.findings) == 20
    assert verification.unlisted > 50
    assert f"and {verification.unlisted} findings more\n" in str(verification)


@pytest.mark.parametrize("status", ["completed", "running"])
def test_damage_to_what_was_superseded_is_found(folder: Path, status: str) -> None:
    """By its line; a resume refuses it too, because it could not say any more what was re-rolled."""
    path = folder / "superseded"
    change(path, status=status)
    nul(path, "superseded.jsonl")
    told = invoke(path / "summary.json")
    assert told.exit_code == 1
    assert f"{path}/superseded.jsonl:5: not a trace: " in told.output
    assert told.output.count("superseded.jsonl") == 1
    assert_resume_does_as_said(path, verify(path))
    before = content(path)
    with pytest.raises(OutputError, match=r"superseded\.jsonl:5: not a trace"):
        Experiment.resume(path, agent, INPUTS, retry_failed="all").run()
    assert content(path) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["complete", "interrupted", "resumed", "superseded"]),
    name=st.sampled_from(LINES),
    how=st.sampled_from(["cut", "cut lines", "nul", "flip", "drop", "double", "swap", "append", "nuls", "remove"]),
    seed=st.integers(0, 2**32),
)
def test_a_resume_does_what_was_said(made: Path, tmp_path: Path, kind: str, name: str, how: str, seed: int) -> None:
    """Whatever happened to a line file: refused, or so many bytes cut off and so many runs run; then all is sound."""
    chance = random.Random(seed)
    path = tmp_path / f"{kind}{seed}{how}"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made / kind, path)
    file = path / name
    data = file.read_bytes()
    found = lines(file)
    at, line = chance.randrange(len(data)), chance.randrange(len(found))
    if how == "cut":
        data = data[:at]
    elif how == "cut lines":
        data = b"".join(found[:line])
    elif how == "nul":
        length = chance.randrange(1, 40)
        data = data[:at] + b"\0" * length + data[at + length :]
    elif how == "flip":
        data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    elif how == "drop":
        data = b"".join(found[:line] + found[line + 1 :])
    elif how == "double":
        data = b"".join(found[: line + 1] + found[line:])
    elif how == "swap":
        other = chance.randrange(len(found))
        found[line], found[other] = found[other], found[line]
        data = b"".join(found)
    elif how == "append":
        data += found[line]
    elif how == "nuls":
        data = data[:at] + b"\0" * (len(data) - at)
    file.write_bytes(data)
    if how == "remove":
        file.unlink()
    told = verify(path)
    # What stands in one file alone, as a traceback or what was printed, may hold another letter.
    if how == "remove" or (data != (made / kind / name).read_bytes() and (how, name) != ("flip", "traces.jsonl")):
        assert not told.is_sound
    assert_resume_does_as_said(path, told)
    shutil.rmtree(path)


def test_a_running_experiment_is_no_fault(tmp_path: Path) -> None:
    """While it is written it is told by whom, what is there is whole, and the exit code is 0."""
    (tmp_path / "hanging.py").write_text(
        "import threading, pathlib\n"
        "def run(text):\n"
        "    if text == 'd':\n"
        "        pathlib.Path('there').touch()\n"
        "        threading.Event().wait(60)\n"
        "    return text\n"
    )
    code = "from fluxloop import Experiment; Experiment(target='hanging:run', inputs=list('abcde')).run()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        try:
            wait_until((tmp_path / "there").exists)
            (path,) = (tmp_path / "experiments").iterdir()
            told = invoke(path)
            assert told.exit_code == 0
            assert re.fullmatch(
                rf"3 runs are whole in all files\nresume would be refused while pid {process.pid} on \S+ writes here\n",
                told.output,
            )
            (path / ".rewrite.new").mkdir()
            assert verify(path).is_sound
        finally:
            process.send_signal(signal.SIGKILL)
    (path / ".rewrite.new").rmdir()
    after = invoke(path)
    assert after.exit_code == 1
    assert "says running, though nobody writes here: a crash cut the experiment short" in after.output
    assert "resume would run 2 of 5 runs; to be given again: inputs\n" in after.output


def test_while_another_writes_damage_is_found_all_the_same(folder: Path) -> None:
    """Only what a writer may be about to do is no finding."""
    path = folder / "complete"
    append(path, LINES[0], b"half a li")
    with DirectoryLock(path):
        assert verify(path).is_sound
        nul(path, LINES[1])
        assert not verify(path).is_sound


@pytest.mark.parametrize("wrong", ["nowhere", ".", "file"])
def test_what_is_no_experiment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """With exit code 2, and a message that says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    told = invoke(wrong)
    assert told.exit_code == 2
    assert told.output == f"Error: {wrong}: not an experiment directory: none of its files is there\n"
    with pytest.raises(OutputError):
        verify(Path(wrong))


def test_memory_is_flat(tmp_path: Path) -> None:
    """Twenty times the runs take no more memory than a bit and an index each."""
    code = """
import sys, tracemalloc
from fluxloop.verifying import verify
verify(sys.argv[1])
tracemalloc.start()
assert verify(sys.argv[1]).is_sound
print(tracemalloc.get_traced_memory()[1])
"""

    def peak(iterations: int) -> int:
        path = run(tmp_path, f"of{iterations}", iterations=iterations)
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert peak(1000) - peak(50) < 500_000
