"""`fluxloop verify`."""

from __future__ import annotations

import click

from fluxloop_cli.completing import experiments
from fluxloop_cli.telling import plain_errors, tell


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
Examples:

\b
  fluxloop verify experiments/my_agent_20241101_143022

Exit codes: 0 nothing is wrong; 1 something is; 2 it is no experiment directory.
""",
)
@click.argument("directory", metavar="DIR", shell_complete=experiments)
@click.pass_context
def verify(ctx: click.Context, directory: str) -> None:
    """Check that the files of an experiment are whole and agree.

    Reads every line, compares ids across the files and counts with summary.json and
    config.yaml, and says what is wrong, where, and what a resume would do. Changes nothing.
    """
    from fluxloop.verifying import verify as check

    with plain_errors("Interrupted; nothing was changed."):
        verification = check(directory)
    tell(str(verification))
    ctx.exit(0 if verification.is_sound else 1)
