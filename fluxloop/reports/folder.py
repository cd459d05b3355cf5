"""A report put in its place as a whole, beside files that are not ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluxloop.exceptions import OutputError
from fluxloop.store.litter import held, prefix, sweep
from fluxloop.store.modes import make_directory

INDEX = "index.md"
PAGES = "per_trace_analysis"
MARK = "<!-- Written by fluxloop; parse --overwrite replaces it. -->\n"
"""The first line of every file of ours, by which we know them again."""


@contextmanager
def report_folder(output: Path, *, overwrite: bool, mode: int = 0o700) -> Iterator[Path]:
    """Give a folder for a new report; when the context ends well it takes its place in `output`.

    What a failure leaves is the earlier report as it was. Files that are not ours stay, always.

    Args:
        output: where the report goes.
        overwrite: whether it may take the place of an earlier one.
        mode: the permissions of the folders, which the files in them follow.

    Raises:
        OutputError: a report is there and `overwrite` is False; or a file that is not ours is where one of ours
            belongs; or the folder cannot be written to.
    """
    _refuse(output, overwrite=overwrite)
    stage: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            make_directory(output, mode)
        sweep(output, "report")
        stage = Path(tempfile.mkdtemp(prefix=prefix("report"), dir=output))
        os.chmod(stage, mode)
        make_directory(stage / PAGES, mode)
        with held(stage):
            yield stage
        _put(stage, output)
    except OSError as error:
        raise OutputError(output, f"the report cannot be written: {error.strerror or error}") from None
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _refuse(output: Path, *, overwrite: bool) -> None:
    if os.path.lexists(output) and not output.is_dir():
        raise OutputError(output, "is not a folder; name another with --output")
    index, pages = output / INDEX, output / PAGES
    for path in index, pages:
        if os.path.lexists(path) and not overwrite:
            raise OutputError(path, "is there already; --overwrite replaces a report, --output names another folder")
    if os.path.lexists(index):
        _refuse_other(index)
    if os.path.lexists(pages) and (pages.is_symlink() or not pages.is_dir()):
        raise OutputError(pages, "is not a folder of ours; name another place with --output")


def _refuse_other(path: Path) -> None:
    if not _is_ours(path):
        raise OutputError(path, "was not written by fluxloop and is left as it is; name another folder with --output")


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _put(stage: Path, output: Path) -> None:
    new, pages = stage / PAGES, output / PAGES
    if pages.exists():
        names, there = os.listdir(new), set(os.listdir(pages))
        for name in names:
            if name in there:
                _refuse_other(pages / name)
        for name in there.difference(names):
            if name.endswith(".md") and _is_ours(pages / name):
                os.unlink(pages / name)  # of a run that the new report has no page for
        for name in names:
            os.replace(new / name, pages / name)
    else:
        os.rename(new, pages)
    os.replace(stage / INDEX, output / INDEX)
