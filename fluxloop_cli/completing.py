"""What the shell completes beside options: files, folders, and experiments, the newest first."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave files to the shell."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave folders to the shell."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def experiments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the directories of experiments, or leave folders to the shell where none begins so."""
    from click.shell_completion import CompletionItem

    found = [CompletionItem(_quoted(path)) for path in _paths(ctx) if path.startswith(incomplete)]
    return found or folders(ctx, param, incomplete)


def resumable(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what `--resume` takes."""
    from click.shell_completion import CompletionItem

    words = {"last": "the newest of the name", "auto": "the newest of the same plan that is unfinished, else a new one"}
    found = [CompletionItem(word, help=told) for word, told in words.items() if word.startswith(incomplete)]
    below = experiments(ctx, param, incomplete)
    return found if found and below[0].type == "dir" else [*found, *below]


def _paths(ctx: click.Context) -> list[str]:
    """The experiments of the folder that options, configuration or default name, as seen from here."""
    from fluxloop.exceptions import FluxloopError
    from fluxloop.listing import experiment_paths, experiments_folder
    from fluxloop.progress import shown_place
    from fluxloop.visible import encodable, encoding_of

    given = ctx.params.get("output_dir")
    try:
        folder = experiments_folder(ctx.params.get("config")) if given is None else Path(given)
        told = [shown_place(str(path)) for path in experiment_paths(folder)]
    except (FluxloopError, OSError):
        return []  # a command line that is being written is no place for complaints
    taken = ctx.params.get("directories") or ()
    encoding = encoding_of(sys.stdout)
    shown = [path for path in told if path.isprintable() and encodable(path, encoding) == path]
    return [path for path in shown if path not in taken]


def _quoted(path: str) -> str:
    """Quote for bash, which puts words on the line as they are, and of click's script, which reads `\\\\` for `\\`."""
    if not os.environ.get("_FLUXLOOP_COMPLETE", "").startswith("bash"):
        return path
    return re.sub(r"([^\w@%+=:,./-])", r"\\\\\1", path)
