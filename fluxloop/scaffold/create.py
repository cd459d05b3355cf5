"""Make a project that runs at once, and never overwrite a file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from attrs import frozen

from fluxloop.config.showing import printable
from fluxloop.exceptions import OutputError
from fluxloop.scaffold.schemas import FILES as SCHEMAS
from fluxloop.scaffold.schemas import schema_text

PURPOSES = {
    "configs/simulation.yaml": "what is run, and how; every key is explained",
    "configs/input.yaml": "what `fluxloop generate inputs` makes inputs of",
    "configs/simulation.schema.json": "by which editors complete and check simulation.yaml",
    "configs/input.schema.json": "and input.yaml",
    "inputs/generated.yaml": "what the agent is asked, and by whom",
    "examples/my_agent.py": "the agent: put your own in its place",
    ".gitignore": "keeps results out of git",
}
"""The files of a project, in the order in which they are told."""

NEXT = {
    "fluxloop run experiment": "ends with the pass rate, and the folder of the results",
    "fluxloop parse experiment DIR": "makes that folder readable",
    "fluxloop generate inputs --output inputs/batch1.yaml": "makes more inputs",
}
"""What to do with a project, and why."""


@frozen(kw_only=True)
class Project:
    """A project that was made, or completed."""

    directory: Path
    written: tuple[str, ...]
    """Files below it."""
    kept: tuple[str, ...]
    """Files that were there already, and are as they were."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        place = os.path.normpath(self.directory)
        is_here = place == os.curdir
        width = max(map(len, PURPOSES))
        if self.written:
            yield f"Made in {'this folder' if is_here else printable(place)}:"
            yield from (f"  {name:{width}}  {PURPOSES[name]}" for name in self.written)
        if self.kept:
            yield "Kept as they are, since they were there:"
            yield from (f"  {name}" for name in self.kept)
        yield "Next:"
        if not is_here:
            yield f"  cd {shlex.quote(printable(place))}"
        for command, purpose in NEXT.items():
            yield f"  {command:{max(map(len, NEXT))}}  # {purpose}"


def create_project(directory: str | os.PathLike[str] = ".") -> Project:
    """Write the files of a new project; those that are there already stay as they are.

    Args:
        directory: where; it is made if need be.

    Raises:
        OutputError: a file stands where a folder belongs or the other way round, and nothing was
            written; or a file could not be written.

    Example:
        >>> create_project("demo").written  # doctest: +SKIP
        ('configs/simulation.yaml', 'configs/input.yaml', …)
    """
    folder = Path(directory)
    try:
        for name in PURPOSES:
            _check(folder, name)
    except OSError as error:
        raise OutputError(folder, f"cannot be made: {error.strerror or error}") from error
    written = tuple(name for name in PURPOSES if _write_new(folder / name, _content(name)))
    return Project(directory=folder, written=written, kept=tuple(name for name in PURPOSES if name not in written))


def _content(name: str) -> bytes:
    for schema, place in SCHEMAS.items():
        if name == place:
            return schema_text(schema).encode()
    return files("fluxloop.scaffold").joinpath("project", *name.lstrip(".").split("/")).read_bytes()


def _check(folder: Path, name: str) -> None:
    """Refuse what would leave half a project."""
    path = folder / name
    if path.is_dir():
        raise OutputError(path, "a folder stands where a file belongs; move it, or name another folder")
    for above in path.parents:
        if above.is_dir():
            return
        if os.path.lexists(above):
            raise OutputError(above, "this is no folder; move it, or name another folder")


def _write_new(path: Path, content: bytes) -> bool:
    """Write a file that is not there, and tell whether it was not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(content)
        except OSError:
            with suppress(OSError):
                path.unlink()  # half of it would be kept the next time
            raise
    except OSError as error:
        raise OutputError(path, f"cannot be written: {error.strerror or error}") from error
    return True
