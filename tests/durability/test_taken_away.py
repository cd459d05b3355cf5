"""Results that somebody else changes while they are written: it stops at once, or no harm is done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fluxloop
from fluxloop import Experiment, SinkError, TraceSink
from fluxloop.store.presence import Kept, TakenAwayError
from fluxloop.store.runs import count_whole
from fluxloop.store.syncing import GroupSync
from fluxloop.verifying import verify
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="open files keep their names there")

INPUTS = [f"q{number}" for number in range(8)]
AT = 5
"""The run in which it happens."""
LINES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
DOCUMENTS = ("config.yaml", "summary.json", ".lock")


def cut_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def add(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b"{}\n")


def put(file: Path, content: bytes) -> None:
    other = file.with_name("other")
    other.write_bytes(content)
    other.replace(file)


def link(file: Path) -> None:
    moved = file.parents[1] / file.name
    file.rename(moved)
    file.symlink_to(moved)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def there_and_back(path: Path) -> None:
    away = path.with_name("away")
    path.rename(away)
    away.rename(path)


def move_and_link(directory: Path) -> None:
    away = directory.with_name("away")
    directory.rename(away)
    directory.symlink_to(away)


def copy_over(directory: Path) -> None:
    away = directory.with_name("away")
    directory.rename(away)
    shutil.copytree(away, directory)


def make_anew(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


Act = Callable[[Path], object]
FILES: dict[str, Act] = {
    "deleted": Path.unlink,
    "emptied": lambda file: os.truncate(file, 0),
    "cut": cut_half,
    "longer": add,
    "renamed": lambda file: file.rename(file.with_name("away")),
    "replaced": lambda file: put(file, b"{}\n"),
    "made a link": link,
    "made a folder": make_folder,
}
COPIED: dict[str, Act] = {"replaced by its copy": lambda file: put(file, file.read_bytes())}
HARMLESS: dict[str, Act] = {
    "renamed and back": there_and_back,
    "touched": lambda file: os.utime(file),
    "made readable": lambda file: file.chmod(0o600),
    "read": Path.read_bytes,
}
DIRECTORY: dict[str, Act] = {
    "deleted": shutil.rmtree,
    "renamed": lambda path: path.rename(path.with_name("away")),
    "made anew": make_anew,
    "replaced by its copy": copy_over,
    "emptied": lambda path: [file.unlink() for file in path.iterdir()],
}
HARMLESS_TO_DIRECTORY: dict[str, Act] = {
    "renamed and back": there_and_back,
    "moved and linked": move_and_link,
    "given a file": lambda path: (path / "notes.txt").write_text("mine"),
}

Way = tuple[str, Act]
"""A file of the directory, or "", and what is done to it."""


def ways(names: tuple[str, ...], acts: dict[str, Act]) -> list[object]:
    return [
        pytest.param((name, act), id=f"{name or 'directory'} {what}") for name in names for what, act in acts.items()
    ]


STOPPING = [
    *ways((*LINES, *DOCUMENTS), FILES),
    *ways(LINES, COPIED),
    *ways(("",), DIRECTORY),
]
HARMING_NOTHING = [
    *ways((*LINES, *DOCUMENTS), HARMLESS),
    *ways(DOCUMENTS, COPIED),
    *ways(("",), HARMLESS_TO_DIRECTORY),
]


class Changed:
    """An experiment in whose runs somebody changes the directory, and which is then looked at by the thread that syncs.

    Args:
        folder: where it is.
        way: what is changed.
        at: in which run.
    """

    def __init__(self, folder: Path, way: Way, monkeypatch: pytest.MonkeyPatch, *, at: int = AT) -> None:
        self.folder, self._way, self._at = folder / "out", way, at
        self.calls = self._looks = 0
        self._has_ended = False
        monkeypatch.setattr("fluxloop.store.syncing.SYNC_AFTER", 0.001)
        monkeypatch.setattr("fluxloop.store.syncing.LOOK_AFTER", 0.001)
        look = GroupSync._look

        def counted(group: GroupSync) -> None:
            look(group)
            self._looks += 1
            self._has_ended = group._failure is not None

        monkeypatch.setattr(GroupSync, "_look", counted)

    @property
    def path(self) -> Path:
        (path,) = self.folder.glob("agent_*")
        return path

    def change(self) -> None:
        name, act = self._way
        act(self.path / name if name else self.path)

    def agent(self, text: str) -> str:
        self.calls += 1
        if self.calls == self._at:
            self.change()
            before = self._looks
            if self.calls > 1:  # nobody looks before anything was written
                wait_until(lambda: self._has_ended or self._looks > before + 1)
        return fluxloop.tool(str.upper)(text)

    def experiment(self, **options: object) -> Experiment:
        return Experiment(target=self.agent, inputs=INPUTS, name="agent", output_dir=self.folder, **options)  # type: ignore[arg-type]


def check_claim(told: str, path: Path, finished: int) -> None:
    """What is said to be there is there, to the run."""
    whole = count_whole(path)
    if match := re.search(rf"of {finished} finished runs, (\d+) are still in ", told):
        assert int(match[1]) == whole
    elif f"none of the {finished} finished runs is in " in told:
        assert whole == 0
    else:
        assert f"the {finished} runs finished before are safe in {path}" in told
        assert whole == finished


@pytest.mark.parametrize("way", STOPPING)
def test_what_is_changed_stops_the_experiment_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """No run starts after it; what is said names the file, and claims what is there."""
    changed = Changed(tmp_path, way, monkeypatch)
    with pytest.raises(SinkError) as error:
        changed.experiment().run()
    assert changed.calls == AT
    (path,) = re.findall(rf"{re.escape(str(changed.folder))}/agent_\w+", str(error.value))[:1]
    name = way[0]
    assert str(error.value).startswith(f"{path}/{name}" if name else path)
    check_claim(str(error.value), Path(path), AT - 1)


@pytest.mark.parametrize("way", HARMING_NOTHING)
def test_what_does_no_harm_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """All runs are there, and what is there is sound."""
    changed = Changed(tmp_path, way, monkeypatch)
    result = changed.experiment().run()
    assert (changed.calls, len(result)) == (len(INPUTS), len(INPUTS))
    assert verify(result.path).is_sound


@pytest.mark.parametrize("at", [1, len(INPUTS)])
@pytest.mark.parametrize("way", [("", shutil.rmtree), ("traces.jsonl", cut_half), ("config.yaml", Path.unlink)])
def test_it_is_seen_in_the_first_run_and_in_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, at: int
) -> None:
    """Also before anything was written, and when nothing more is to be."""
    changed = Changed(tmp_path, way, monkeypatch, at=at)
    if at == 1 and way[0] == "traces.jsonl":
        return  # there is nothing yet that could be cut
    with pytest.raises(SinkError, match=re.escape(way[0] or "is gone")):
        changed.experiment().run()
    assert changed.calls >= at


@pytest.mark.parametrize("name", [*LINES, "config.yaml", "summary.json", ""])
def test_the_last_look_is_after_other_sinks_have_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They may take long, and the end claims all."""
    act: Act = Path.unlink if name else shutil.rmtree
    changed = Changed(tmp_path, (name, act), monkeypatch, at=0)

    class Slow(TraceSink):
        def close(self, summary: object) -> None:
            changed.change()

    with pytest.raises(SinkError, match=re.escape(name or "is gone")):
        changed.experiment(sinks=[Slow()]).run()


def test_what_took_the_place_of_the_directory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ours: no summary is written there, no lock is taken away, and nothing is deleted."""

    def take_place(directory: Path) -> None:
        directory.rename(directory.with_name("away"))
        directory.mkdir()
        for name in (".lock", ".reserve", "precious"):
            (directory / name).write_text("precious")

    changed = Changed(tmp_path, ("", take_place), monkeypatch, at=1)
    with pytest.raises(SinkError):
        changed.experiment().run()
    assert {file.name: file.read_text() for file in changed.path.iterdir()} == dict.fromkeys(
        (".lock", ".reserve", "precious"), "precious"
    )


def test_a_small_file_is_compared_by_content_once_it_was_touched(tmp_path: Path) -> None:
    """So an editor that saved nothing new does no harm; one that did is found out, also at the same length."""
    file = tmp_path / "config.yaml"
    file.write_text("iterations: 3\n")
    kept = Kept(file)
    put(file, b"iterations: 3\n")
    kept.check()
    put(file, b"iterations: 4\n")
    with pytest.raises(TakenAwayError, match="is not as it was written"):
        kept.check()


AGENT = """
import os, shutil, threading
def run(text):
    if text == "q3":
        (made,) = os.listdir("out")
        shutil.rmtree(f"out/{made}")
    elif text > "q3":
        threading.Event().wait()
    return text
"""


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_the_command_ends_with_1(tmp_path: Path, executor: str) -> None:
    """Also while runs are in flight that would never end."""
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "in.yaml").write_text("".join(f"- {text}\n" for text in INPUTS))
    command = [
        sys.executable,
        "-m",
        "fluxloop_cli",
        "run",
        "experiment",
        "--target",
        "agent:run",
        "--inputs",
        "in.yaml",
    ]
    options = ["--output-dir", "out", "--executor", executor, "--parallel", "2", "--no-progress"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert re.search(r"agent_\w+ is gone: .* none of the [34] finished runs is in ", done.stderr.splitlines()[-1])
