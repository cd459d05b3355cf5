"""`fluxloop list`."""

from __future__ import annotations

import click

from fluxloop_cli.completing import files, folders
from fluxloop_cli.telling import plain_errors, tell


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
Examples:

\b
  fluxloop list
  fluxloop list --limit 10
  fluxloop list --output-dir results --json
""",
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    shell_complete=files,
    help="Take the folder from this configuration's output.directory. E.g. -c my.yaml",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    shell_complete=folders,
    help="The folder of the experiments. E.g. --output-dir results",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N. E.g. --limit 10")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list(config: str | None, output_dir: str | None, limit: int | None, as_json: bool) -> None:
    """List experiments, the newest first.

    With their time, status, runs, pass rate and size on disk. The folder is that of
    configs/simulation.yaml when there is one, else experiments/. Running is what has
    a writer; killed is what lost its writer before its end.
    """
    from fluxloop.listing import experiments_folder, list_experiments
    from fluxloop.reports.experiments import experiments_json, experiments_table

    with plain_errors("Interrupted."):
        folder = experiments_folder(config) if output_dir is None else output_dir
        found = list_experiments(folder, limit=limit)
        told = experiments_json(found) if as_json else experiments_table(found)
    if found or as_json:
        tell(told)
    else:
        tell(f"No experiments in {folder}", err=True)
