"""What an experiment ran on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import fluxloop
from fluxloop.provenance import git_state, ran_on


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "agent.py").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_versions_and_platform_are_told(tmp_path: Path) -> None:
    """Outside a repository git is null."""
    told = ran_on(tmp_path, tmp_path / "experiments")
    assert told["fluxloop"] == fluxloop.__version__
    assert told["git"] is None
    assert told["python"]
    assert told["platform"]


def test_a_clean_tree_has_a_commit_and_no_digest(repository: Path) -> None:
    """Also from a folder below, and with results in the tree."""
    results = repository / "results [1]"
    results.mkdir()
    (results / "traces.jsonl").write_text("x")
    (repository / "below").mkdir()
    for root in (repository, repository / "below"):
        state = git_state(root, results)
        assert state is not None
        assert len(state["commit"]) == 40
        assert (state["clean"], state["diff_digest"]) == (True, None)


def test_a_changed_tree_has_a_digest_of_the_change(repository: Path) -> None:
    """The same for the same change; results do not count."""
    results = repository / "experiments"
    results.mkdir()

    def digest(content: str, result: str) -> str:
        (repository / "agent.py").write_text(content)
        (results / "kept").write_text(result)
        state = git_state(repository, results)
        assert state is not None
        assert state["clean"] is False
        return str(state["diff_digest"])

    (results / "kept").write_text("")
    git(repository, "add", "experiments")
    git(repository, "commit", "-q", "-m", "results")
    assert digest("two\n", "a") == digest("two\n", "b") != digest("three\n", "b")


def test_a_repository_git_cannot_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a commit, broken, or without git."""
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path, tmp_path / "x") is None
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path, tmp_path) is None
