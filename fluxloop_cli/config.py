"""`fluxloop config`."""

from __future__ import annotations

from typing import Any

import click

from fluxloop_cli.run import experiment, pair
from fluxloop_cli.telling import plain_errors, tell


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Look at the configuration."""


@config.command(
    epilog="""
Examples:

\b
  fluxloop config schema > configs/simulation.schema.json
  fluxloop config schema input > configs/input.schema.json
"""
)
@click.argument("of", metavar="[simulation|input]", type=click.Choice(["simulation", "input"]), default="simulation")
def schema(of: str) -> None:
    """Print the JSON Schema of a configuration file.

    Of configs/simulation.yaml, or of configs/input.yaml. Editors complete and check keys by it,
    when the file begins with

    \b
      # yaml-language-server: $schema=simulation.schema.json
    """
    from fluxloop.scaffold.schemas import schema_text

    with plain_errors("Interrupted."):
        text = schema_text(of)
    tell(text.rstrip("\n"))


_NOT_CONFIGURATION = {"resume", "retry_failed", "force", "capture_output", "dry_run", "quiet", "no_progress"}


@config.command(
    params=[option for option in experiment.params if option.name not in _NOT_CONFIGURATION],
    epilog="""
Examples:

\b
  fluxloop config show
  fluxloop config show --iterations 20 --set runner.args.model=small
  fluxloop config show -c experiments/my_agent_20241101_143022/config.yaml

Exit codes: 0, or 2 when something in it is wrong.
""",
)
def show(config: str | None, target: str | None, input_map: tuple[str, ...], **options: Any) -> None:
    """Print the resolved configuration, and where each value came from.

    Takes the options of `fluxloop run experiment` that set the configuration. The order is
    default, file, environment, command line; the last wins. Secrets are masked.
    """
    from fluxloop import Experiment
    from fluxloop.config import default_config

    with plain_errors("Interrupted."):
        chosen = config or default_config(optional=target is not None)
        fields = dict(pair(text) for text in input_map)
        text = Experiment(chosen, target=target, input_map=fields, **options).show_config(caller="command line")
    tell(text.rstrip("\n"))
