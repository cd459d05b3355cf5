"""`fluxloop parse`."""

from __future__ import annotations

from typing import Literal

import click

from fluxloop_cli.completing import experiments, folders
from fluxloop_cli.telling import plain_errors, tell_path


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def parse() -> None:
    """Make results readable."""


@parse.command(
    epilog="""
Examples:

\b
  fluxloop parse experiment experiments/my_agent_20241101_143022
  fluxloop parse experiment experiments/my_agent_20241101_143022 --only failed --output report

Exit codes: 0 it is written; 2 the directory is no experiment, its files are
damaged, or something is in the way.
"""
)
@click.argument("directory", metavar="DIR", shell_complete=experiments)
@click.option(
    "--output",
    metavar="DIR",
    shell_complete=folders,
    help="Folder of the report, by default the experiment's own. E.g. --output report",
)
@click.option("--only", type=click.Choice(["failed"]), help="Take only the runs that did not pass.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report; files of others are never touched.")
def experiment(directory: str, output: str | None, only: Literal["failed"] | None, overwrite: bool) -> None:
    """Write an experiment as Markdown.

    index.md has the summary, the failures and a table of all runs; per_trace_analysis/
    has a page for each run. Experiments that run still, or were cut short, are fine.
    """
    from fluxloop import load
    from fluxloop.progress import shown_place

    with plain_errors("Interrupted; what was there before is as it was."):
        index = load(directory).to_markdown(output, only=only, overwrite=overwrite)
        told = shown_place(str(index))
    tell_path(told)
