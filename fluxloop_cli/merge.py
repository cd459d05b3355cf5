"""`fluxloop merge`."""

from __future__ import annotations

import click

from fluxloop_cli.completing import experiments, folders
from fluxloop_cli.telling import plain_errors, tell


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
Examples:

\b
  fluxloop merge experiments/my_agent_*of8_* --output experiments/my_agent
  fluxloop merge shards/* --output merged --allow-partial

Exit codes: those of the run; 2 when the directories cannot be merged, and then
nothing is written.
""",
)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, shell_complete=experiments)
@click.option(
    "--output",
    metavar="DIR",
    required=True,
    shell_complete=folders,
    help="The directory to make, new or empty. E.g. --output experiments/all",
)
@click.option("--allow-partial", is_flag=True, help="Accept that shards, or some of their runs, are missing.")
@click.pass_context
def merge(ctx: click.Context, directories: tuple[str, ...], output: str, allow_partial: bool) -> None:
    """Make one experiment of its shards.

    Names the directories of all shards of an experiment and writes what one run of
    it all would have written; the shards stay as they are.
    """
    from fluxloop import merge
    from fluxloop.reports.rows import text_table

    with plain_errors("Interrupted; nothing was written."):
        result = merge(directories, output, allow_partial=allow_partial)
    tell(text_table(result.table()))
    ctx.exit(result.exit_code)
