"""Shell completion: options, commands, files, and experiments, the newest first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from fluxloop import Experiment
from tests.durability.lab import Lab

Complete = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the command `fluxloop` on the path."""
    script = tmp_path / "bin/fluxloop"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom fluxloop_cli.main import main\nmain()\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def complete(folder: Path, forking: Lab) -> Complete:
    """What a shell is told when Tab is pressed at the end of a line."""

    def complete(*words: str, shell: str = "bash", **variables: str) -> list[str]:
        line = {"COMP_WORDS": "\n".join(("fluxloop", *words)), "COMP_CWORD": str(len(words))}
        if shell == "fish":
            line["COMP_CWORD"] = words[-1]
        environment = {**line, "_FLUXLOOP_COMPLETE": f"{shell}_complete", **variables}
        ran = forking.run(environment=environment, cwd=Path.cwd())
        assert ran.told == ""
        return ran.said.splitlines()

    return complete


def experiment(name: str, started: str, folder: str = "experiments") -> str:
    """An experiment that began at that time, and its path from here."""
    result = Experiment(target=str.upper, inputs=["a"], name=name, output_dir=folder).run()
    summary = json.loads((result.path / "summary.json").read_text())
    (result.path / "summary.json").write_text(json.dumps({**summary, "started_at": f"{started}T00:00:00.000000Z"}))
    return os.path.relpath(result.path)


@pytest.fixture
def three(folder: Path) -> list[str]:
    """Three experiments, the newest first, which is neither their order by name nor by time on disk."""
    middle = experiment("b", "2024-02-02")
    newest = experiment("c", "2024-03-03")
    oldest = experiment("a", "2024-01-01")
    Path("experiments/notes").mkdir()
    return [newest, middle, oldest]


@pytest.mark.parametrize("words", [("verify",), ("merge",), ("parse", "experiment")])
def test_experiments_are_completed_newest_first(complete: Complete, three: list[str], words: tuple[str, ...]) -> None:
    """Where a command takes one; other folders are left out."""
    assert complete(*words, "") == [f"plain,{path}" for path in three]
    assert complete(*words, "experiments/b") == [f"plain,{three[1]}"]


def test_resume_takes_words_as_well(complete: Complete, three: list[str]) -> None:
    """`last` and `auto` come first, with what they mean where a shell shows it."""
    assert complete("run", "experiment", "--resume", "") == ["plain,last", "plain,auto", *(f"plain,{p}" for p in three)]
    assert complete("run", "experiment", "--resume", "la") == ["plain,last"]
    assert complete("run", "experiment", "--resume=experiments/c") == [f"plain,{three[0]}"]
    assert complete("run", "experiment", "--resume", "l", shell="fish") == ["plain,last\tthe newest of the name"]
    assert complete("run", "experiment", "--resume", "l", shell="zsh") == ["plain", "last", "the newest of the name"]


def test_merge_leaves_out_what_is_named_already(complete: Complete, three: list[str]) -> None:
    """A shard is merged once."""
    assert complete("merge", three[1], "") == [f"plain,{three[0]}", f"plain,{three[2]}"]


def test_the_folder_is_that_of_the_command(complete: Complete, folder: Path) -> None:
    """Of `--output-dir`, of the configuration that is named, of the project's, or of the environment."""
    here = experiment("a", "2024-01-01", "here")
    there = experiment("b", "2024-01-01", "there")
    Path("configs").mkdir()
    Path("configs/simulation.yaml").write_text("output: {directory: here}\nrunner: {args: {key: '${NOT_SET}'}}\n")
    Path("other.yaml").write_text("output: {directory: there}\n")
    resume = ("--resume", "h")
    assert complete("verify", "") == [f"plain,{here}"]
    assert complete("run", "experiment", "--output-dir", "there", "--resume", "t") == [f"plain,{there}"]
    assert complete("run", "experiment", "-c", "other.yaml", "--resume", "t") == [f"plain,{there}"]
    assert complete("run", "experiment", *resume) == [f"plain,{here}"]
    Path("configs/simulation.yaml").unlink()
    assert complete("verify", "", FLUXLOOP_OUTPUT__DIRECTORY="there") == [f"plain,{there}"]


@pytest.mark.parametrize("config", ["output: [", "output: {directory: 3}\n", "output: {directory: /dev/null}\n"])
def test_what_is_wrong_completes_to_folders_without_a_word(complete: Complete, folder: Path, config: str) -> None:
    """A line that is being written is no place for complaints; the shell goes on by itself."""
    assert complete("verify", "exp") == ["dir,exp"]
    Path("configs").mkdir()
    Path("configs/simulation.yaml").write_text(config)
    assert complete("verify", "exp") == ["dir,exp"]
    assert complete("run", "experiment", "--resume", "") == ["plain,last", "plain,auto"]


def test_options_and_commands_are_completed(complete: Complete) -> None:
    """Every command, and the options of each."""
    commands = ["config", "generate", "init", "list", "merge", "parse", "run", "verify"]
    assert complete("") == [f"plain,{name}" for name in commands]
    assert complete("run", "experiment", "--max") == [f"plain,--max-{what}" for what in ("retries", "failures", "time")]
    assert complete("config", "schema", "") == ["plain,simulation", "plain,input"]
    assert "plain,--iterations" in complete("config", "show", "--")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("run experiment --config", "file"),
        ("run experiment --inputs", "file"),
        ("run experiment --output-dir", "dir"),
        ("config show -c", "file"),
        ("generate inputs --config", "file"),
        ("generate inputs --output", "file"),
        ("list --config", "file"),
        ("list --output-dir", "dir"),
        ("merge --output", "dir"),
        ("parse experiment --output", "dir"),
        ("init", "dir"),
    ],
)
def test_files_and_folders_are_left_to_the_shell(complete: Complete, words: str, kind: str) -> None:
    """Which knows them best."""
    assert complete(*words.split(), "x") == [f"{kind},x"]


def test_completing_loads_nothing_to_run_with(folder: Path) -> None:
    """Nor does a command that completes nothing load what completes."""
    code = "import sys, fluxloop_cli.run, fluxloop_cli.merge; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"click.shell_completion", "fluxloop.listing", "fluxloop.config", "cattrs"} & set(loaded)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_switches_it_on_is_a_script_of_the_shell(folder: Path, shell: str) -> None:
    """And it is whole: the shell itself finds no fault with it, where there is one."""
    environment = {**os.environ, "_FLUXLOOP_COMPLETE": f"{shell}_source"}
    script = subprocess.run(["fluxloop"], env=environment, capture_output=True, text=True, check=True).stdout
    assert "_FLUXLOOP_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_the_readme_tells_how_to_switch_it_on(folder: Path) -> None:
    """With a line for each shell, that of bash run as it stands."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    lines = re.findall(r"`([^`\n]*_FLUXLOOP_COMPLETE=(\w+)_source fluxloop[^`\n]*)`", readme)
    assert [shell for _, shell in lines] == ["bash", "zsh", "fish"]
    told = subprocess.run(
        ["bash", "-c", f"{lines[0][0]}; complete -p fluxloop"], capture_output=True, text=True, check=True
    )
    assert "_fluxloop_completion" in told.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes(folder: Path) -> None:
    """Tab completes an experiment, also one whose name needs quotes, and the command gets it whole."""
    experiment("it's 5 $HOME", "2024-01-01")
    environment = {**os.environ, "PS1": "ready> ", "TERM": "dumb", "INPUTRC": "/dev/null", "HISTFILE": ""}
    shell = pexpect.spawn("bash", ["--norc", "--noprofile"], env=environment, encoding="utf-8", timeout=60)
    try:
        shell.setwinsize(50, 200)
        shell.expect_exact("ready> ")
        shell.sendline("bind 'set enable-bracketed-paste off'")
        shell.expect_exact("ready> ")
        shell.sendline('eval "$(_FLUXLOOP_COMPLETE=bash_source fluxloop)"')
        shell.expect_exact("ready> ")
        shell.send("fluxloop ver\t")
        shell.expect_exact("verify ")
        shell.send("exp\t")
        shell.expect(r"experiments/it\\'s\\ 5\\ \\\$HOME_\d+_\d+ ")
        shell.sendline()
        shell.expect_exact("1 run is whole in all files")
    finally:
        shell.close(force=True)
