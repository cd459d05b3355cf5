"""`fluxloop init`."""

from __future__ import annotations

import click

from fluxloop_cli.completing import folders
from fluxloop_cli.telling import plain_errors, tell


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
Examples:

\b
  fluxloop init
  fluxloop init demo && cd demo && fluxloop run experiment

Exit codes: 0 the files are there; 2 something is in the way, and nothing was written,
or a file could not be written.
""",
)
@click.argument("directory", metavar="[DIR]", default=".", shell_complete=folders)
def init(directory: str) -> None:
    """Make a project that runs at once.

    Writes configurations in which every key is explained, an agent that needs no key and
    no network, and inputs for it. Files that are there already stay as they are.
    """
    from fluxloop.scaffold.create import create_project

    with plain_errors("Interrupted; what was written stays."):
        told = str(create_project(directory))
    tell(told)
