"""What every command says alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fluxloop_cli.entry import interrupts_raise


def tell(text: str, *, err: bool = False) -> None:
    """Print what came out, with a sign for each character that is none and a mark for what the screen has not.

    A reader that has gone, as `head` or the terminal, changes nothing; nor does a stream that an agent closed.
    """
    from fluxloop.visible import encodable, encoding_of, visible

    stream = sys.stderr if err else sys.stdout
    _write(encodable(visible(text), encoding_of(stream)), err)


def tell_path(path: str) -> None:
    """Print a path; to a program that reads it, byte by byte."""
    from fluxloop.visible import encodable, encoding_of

    if sys.stdout is None or sys.stdout.closed or sys.stdout.isatty():
        tell(path)
    elif encodable(path, encoding_of(sys.stdout)) == path:
        _write(path, err=False)
    else:
        _write(os.fsencode(path), err=False)


def _write(text: str | bytes, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    if stream is None or stream.closed:  # before Python began, or by the agent
        return
    try:
        click.echo(text, err=err)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
        tell(f"Error: {error}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, UsageError) else 1) from error
    except SystemExit as error:  # of code that is neither ours nor a run's, as an executor: its 0 would claim a result
        tell(f"Error: something ended the command with sys.exit({error.code!r}) before there was a result", err=True)
        raise click.exceptions.Exit(1) from error
    except KeyboardInterrupt:
        tell(interrupted, err=True)
        raise click.exceptions.Exit(130) from None
    except FileNotFoundError:
        if _has_working_directory():
            raise
        tell("Error: the working directory is gone; change to a folder that is there", err=True)
        raise click.exceptions.Exit(2) from None


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
