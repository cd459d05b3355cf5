"""The top of the command line; a command's own module is imported when the command is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from fluxloop_cli.telling import tell

_COMMANDS = {
    "config": ("fluxloop_cli.config", "Look at the configuration."),
    "generate": ("fluxloop_cli.generate", "Generate inputs for experiments."),
    "init": ("fluxloop_cli.init", "Make a project that runs at once."),
    "list": ("fluxloop_cli.listing", "List experiments, the newest first."),
    "merge": ("fluxloop_cli.merge", "Make one experiment of its shards."),
    "parse": ("fluxloop_cli.parse", "Make results readable."),
    "run": ("fluxloop_cli.run", "Run experiments with your agent."),
    "verify": ("fluxloop_cli.verify", "Check that the files of an experiment are whole and agree."),
}


class _Lazy(click.Group):
    """A group that imports a command only to run it, so that `--help` is there at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name][0]), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would make it an exit code of 1
            raise click.exceptions.Exit(130) from None
        except click.UsageError as error:  # it quotes what was typed
            from fluxloop.exceptions import UsageError
            from fluxloop.visible import encodable, encoding_of

            said = error.format_message()
            told = encodable(str(UsageError(said)), encoding_of(sys.stderr))
            if told == said:
                raise
            raise click.UsageError(told, error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


def _version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fluxloop import __version__

        tell(f"fluxloop {__version__}")
        ctx.exit()


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: fluxloop run experiment --help",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def main() -> None:
    """Run an AI agent on every input, many times, and see how reliable it is."""
