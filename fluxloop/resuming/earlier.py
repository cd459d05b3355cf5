"""An experiment begun before, as its directory tells it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen

from fluxloop.config.document import read_document
from fluxloop.exceptions import OutputError
from fluxloop.resuming.keys import at
from fluxloop.store.codec import UNREADABLE
from fluxloop.store.files import read_regular, require_regular
from fluxloop.store.layout import CONFIG, SUMMARY
from fluxloop.summary import Summary, lasting_remarks


@frozen(kw_only=True)
class Earlier:
    """An experiment begun before, as its directory tells it."""

    path: Path
    config: dict[str, Any]
    """The content of `config.yaml`."""
    summary: Summary | None
    """The content of `summary.json`, where it can be read."""

    @property
    def ran_on(self) -> dict[str, Any]:
        """What its runs ran on, as far as known."""
        return {} if self.summary is None else self.summary.ran_on

    def told(self, key: str) -> Any:
        """Return what it was begun with under a dotted key; its configuration may only name a variable."""
        value = at(self.config, key)
        return self.ran_on.get(key.rpartition(".")[2], value) if "${" in str(value) else value

    @property
    def iterations(self) -> int | None:
        """How many times it runs each input; its configuration may only name a variable."""
        value = self.ran_on.get("iterations", at(self.config, "runner.iterations"))
        return value if type(value) is int else None

    @property
    def seed(self) -> int | None:
        """What its seeds come from, as `iterations`."""
        value = self.ran_on.get("seed", at(self.config, "seed"))
        return value if type(value) is int else None

    @property
    def shard(self) -> str | None:
        """Which share of the runs it has, as `iterations`."""
        value = self.ran_on.get("shard", at(self.config, "runner.shard"))
        return None if value is None else str(value)

    @property
    def forced(self) -> tuple[str, ...]:
        """Keys that decide its runs and were changed by force."""
        return self._texts("forced")

    @property
    def from_python(self) -> tuple[str, ...]:
        """What only a program can give again."""
        return self._texts("from_python")

    def _texts(self, name: str) -> tuple[str, ...]:
        values = self.ran_on.get(name)
        return tuple(map(str, values)) if isinstance(values, list) else ()

    @property
    def root(self) -> Path | None:
        """Its project root, on the machine it ran on."""
        paths = at(self.config, "runner.python_path")
        return Path(paths[0]) if isinstance(paths, list) and paths and isinstance(paths[0], str) else None


def read_earlier(path: Path) -> Earlier:
    """Read what an experiment directory is of.

    Raises:
        OutputError: it is no experiment directory.
        ConfigError: its `config.yaml` is not one.
    """
    try:
        path.is_file()
    except OSError as error:
        raise OutputError(path, f"not an experiment directory: {error.strerror or error}") from None
    if "\0" in str(path) or not _is_encodable(path):
        raise OutputError(Path(ascii(str(path))), "cannot be a path")
    directory = path.parent if path.name in (CONFIG, SUMMARY) and path.is_file() else path
    for name in (CONFIG, SUMMARY):
        try:
            require_regular(directory / name)
        except OSError as error:
            raise OutputError(directory / name, str(error.strerror)) from None
    if not (directory / CONFIG).is_file():
        raise OutputError(directory, f"not an experiment directory: there is no {CONFIG} in it")
    config = read_document(directory / CONFIG).data
    try:
        summary = msgspec.json.decode(read_regular(directory / SUMMARY), type=Summary)
    except (OSError, *UNREADABLE):
        summary = None
    return Earlier(path=directory, config=config, summary=summary)


def _is_encodable(path: Path) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


class _Told(msgspec.Struct):
    """What is wanted of `summary.json`."""

    status: str


def is_completed(path: Path) -> bool:
    """Tell whether an experiment's summary says that all its runs are done; nothing else is read."""
    try:
        return msgspec.json.decode(read_regular(path / SUMMARY), type=_Told).status == "completed"
    except (OSError, *UNREADABLE):
        return False


def begun_before(parent: Path, stem: str) -> Iterator[Path]:
    """Yield the directories of a name, the newest first."""
    pattern = re.compile(rf"{re.escape(stem)}_(\d{{8}}_\d{{6}})(?:_(\d+))?")
    try:
        found = [(match, path) for path in parent.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return
    found.sort(key=lambda one: (one[0][1], int(one[0][2] or 1)), reverse=True)
    yield from (path for _, path in found if os.path.isfile(path / CONFIG))


def moved(earlier: Earlier, here: Path) -> tuple[Path, dict[str, Any]]:
    """Return the project root, and the paths below it where they are now.

    Args:
        earlier: its paths are those of the machine it ran on.
        here: the project root, should the one it tells be nowhere.
    """
    root = earlier.root
    if root is None:
        return here, {}
    others = at(earlier.config, "runner.python_path")[1:]
    if os.path.isdir(root):  # False for what can be no path
        return root, {"runner.python_path": others}
    keys = ("inputs.file", "replay_args.recording_file", "runner.working_directory", "output.directory")
    paths = {key: at(earlier.config, key) for key in keys}
    below = {key: _below(root, path, here) for key, path in paths.items() if isinstance(path, str)}
    return here, {**below, "runner.python_path": [_below(root, path, here) for path in others]}


def _below(root: Path, path: str, here: Path) -> str:
    return str(here / Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def kept_remarks(earlier: Earlier) -> tuple[str, ...]:
    """Return what was remarked before, but for what the files tell themselves."""
    return () if earlier.summary is None else lasting_remarks(earlier.summary.remarks)
