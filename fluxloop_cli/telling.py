"""What every command says alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fluxloop_cli.entry import interrupts_raise


def tell(text: str, *, err: bool = False) -> None:
    """Print what came out; a reader that has gone, as `head` or the terminal, changes nothing about it."""
    try:
        click.echo(text, err=err)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())


@contextmanager
def plain_errors(interrupted: str) -> Iterator[None]:
    """Tell the library's errors in its own words: 2 for what the user can mend, 1 for the rest.

    Args:
        interrupted: what Ctrl-C means for what is inside.
    """
    from fluxloop.exceptions import FluxloopError, UsageError

    try:
        interrupts_raise()
        yield
    except FluxloopError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, UsageError) else 1) from error
    except KeyboardInterrupt:
        click.echo(interrupted, err=True)
        raise click.exceptions.Exit(130) from None
