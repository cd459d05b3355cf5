"""Who may read results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxloop import Experiment, load, merge
from fluxloop.exceptions import ConfigError
from fluxloop.store.modes import directory_mode


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What new files of the process lack otherwise."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(directory: Path) -> set[int]:
    """The permissions of all files in a directory; those of folders must open what they hold."""
    found = set()
    for folder, _, names in os.walk(directory):
        found.update((Path(folder) / name).stat().st_mode & 0o777 for name in names)
        assert {Path(folder).stat().st_mode & 0o777} == {mode | (mode & 0o444) >> 2 for mode in found}
    return found


def agent(text: str) -> str:
    """Fail on one of the inputs."""
    if text == "b":
        raise TimeoutError
    return text


@pytest.mark.parametrize("mode", ["0600", "640", "0644", "0660"])
def test_results_are_for_whom_the_configuration_says(tmp_path: Path, mode: str, umask: int) -> None:
    """Every file, also of a resume that runs failures again, of a report and of a merge; whatever the umask is."""
    overrides = {"output.mode": mode}
    inputs, bits = ["a", "b"], int(mode, 8)
    result = Experiment(target=agent, inputs=inputs, overrides=overrides, output_dir=tmp_path).run()
    assert modes(result.path) == {bits}
    assert result.path.stat().st_mode & 0o777 == directory_mode(mode)

    Experiment.resume(result.path, target=agent, inputs=inputs, overrides=overrides, retry_failed="all").run()
    assert (result.path / "superseded.jsonl").exists()
    load(result.path).to_markdown(tmp_path / "report")
    assert modes(result.path) | modes(tmp_path / "report") == {bits}


def test_a_merged_experiment_is_for_those_who_may_read_all_its_shards(tmp_path: Path) -> None:
    """The strictest of them decides."""
    shards = [
        Experiment(
            target=agent, inputs=["a", "c"], shard=shard, seed=1, overrides={"output.mode": mode}, output_dir=tmp_path
        ).run()
        for shard, mode in (("1/2", "0644"), ("2/2", "0640"))
    ]
    merged = merge([one.path for one in shards], tmp_path / "merged")
    assert modes(merged.path) == {0o640}


def test_a_resume_changes_who_may_read(tmp_path: Path) -> None:
    """When another mode is given; else what is there stays as it was made, or changed since."""
    begun = Experiment(target=agent, inputs=["a", "b"], output_dir=tmp_path).run().path
    begun.chmod(0o755)
    again = {"target": agent, "inputs": ["a", "b"], "retry_failed": "all"}
    Experiment.resume(begun, **again).run()
    assert begun.stat().st_mode & 0o777 == 0o755
    Experiment.resume(begun, overrides={"output.mode": "0640"}, **again).run()
    assert begun.stat().st_mode & 0o777 == 0o750
    assert modes(begun) == {0o640}


@pytest.mark.parametrize("mode", [640, 0o640, "0755", "0400", "rw-r-----", "06400", "", None, True])
def test_other_modes_are_refused(mode: object) -> None:
    """A number is none, for YAML reads 0640 as 640; nor is what their owner cannot write, or what could be run."""
    with pytest.raises(ConfigError, match="expected permissions in octal and in quotes"):
        Experiment(target=agent, inputs=["a"], overrides={"output.mode": mode})
