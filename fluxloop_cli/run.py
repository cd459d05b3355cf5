"""`fluxloop run`."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import click

from fluxloop_cli.completing import files, folders, resumable
from fluxloop_cli.parameters import INTEGER_OR_NONE, NUMBER_OR_NONE
from fluxloop_cli.telling import plain_errors, tell, tell_path


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def run() -> None:
    """Run experiments with your agent."""


@run.command(
    epilog="""
Examples:

\b
  fluxloop run experiment
  fluxloop run experiment --iterations 20 --name baseline-test
  fluxloop run experiment --target app.graph:graph --inputs questions.csv
  fluxloop run experiment --dry-run

Exit codes: 0 the experiment completed, though runs may have failed (--fail-under
sets a limit); 1 every run failed, a gate was missed, the experiment stopped
early, or results could not be written; 2 something to mend before the first run;
129 the terminal was closed; 130 Ctrl-C; 143 SIGTERM.
"""
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    shell_complete=files,
    help="Configuration file, by default configs/simulation.yaml. E.g. -c my.yaml",
)
@click.option("--target", metavar="MODULE:NAME", help="The agent to run. E.g. --target my_agent:run")
@click.option(
    "--inputs",
    metavar="FILE",
    shell_complete=files,
    help="YAML, JSONL or CSV file of inputs; inputs/generated.yaml unless configured. E.g. --inputs questions.csv",
)
@click.option(
    "--map",
    "input_map",
    metavar="FIELD=KEY",
    multiple=True,
    help="Take a field of the input from another key or column. E.g. --map input=question",
)
@click.option("--iterations", type=int, metavar="N", help="Number of runs per input. E.g. --iterations 20")
@click.option(
    "--output-dir",
    metavar="DIR",
    shell_complete=folders,
    help="Where the experiment makes its own directory. E.g. --output-dir results",
)
@click.option("--name", help="Experiment name, by default the target's module. E.g. --name baseline-test")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set any key of the configuration; repeatable. E.g. --set runner.args.model=small",
)
@click.option(
    "--persona",
    "personas",
    multiple=True,
    help="Run only this persona's inputs; repeatable. E.g. --persona novice_user",
)
@click.option(
    "--input-id", "input_ids", multiple=True, help="Run only this input; repeatable. E.g. --input-id input_003"
)
@click.option("--limit", type=INTEGER_OR_NONE, metavar="N", help="Run only the first N inputs. E.g. --limit 5")
@click.option(
    "--fail-under",
    metavar="SHARE",
    help="Exit with 1 when a smaller share of the runs passes. E.g. --fail-under 95%",
)
@click.option("--parallel", type=int, metavar="N", help="Runs in flight at a time. E.g. --parallel 8")
@click.option(
    "--executor",
    metavar="NAME",
    help="Where runs happen: auto, inline, asyncio, threads, processes or ray. E.g. --executor processes",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=NUMBER_OR_NONE,
    metavar="SECONDS",
    help="What one attempt may take; 0 for any time. E.g. --timeout 60",
)
@click.option(
    "--max-retries", type=int, metavar="N", help="Further attempts after an error that may pass. E.g. --max-retries 3"
)
@click.option(
    "--max-failures", metavar="N|SHARE", help="Stop after so many failed runs, or such a share. E.g. --max-failures 10%"
)
@click.option("--max-time", metavar="TIME", help="Stop after this time. E.g. --max-time 30m")
@click.option(
    "--shard",
    metavar="K/N",
    help="Run only this share of the runs; the others are for other machines. E.g. --shard 2/8",
)
@click.option(
    "--capture-output/--no-capture-output",
    default=True,
    help="Keep what a run prints with it, or leave it on the screen.",
)
@click.option(
    "--resume",
    metavar="DIR|last|auto",
    shell_complete=resumable,
    help="Go on with an experiment: its directory; last, the newest of the name; auto, the newest of the same plan"
    " that is unfinished, else a new one. E.g. --resume last",
)
@click.option(
    "--retry-failed",
    metavar="[=infrastructure|all]",
    is_flag=False,
    flag_value="failed",
    help="On resume, run again what infrastructure, a timeout or a crash ended; with =infrastructure only the first,"
    " with =all whatever failed. Timeouts, crashes and errors of the agent that run again bias the pass rate upwards.",
)
@click.option("--force", is_flag=True, help="Resume although the runs would not be alike; the summary will say so.")
@click.option("--dry-run", is_flag=True, help="Show what would be run, and write nothing.")
@click.option("--quiet", is_flag=True, help="Print only the path of the results.")
@click.option("--no-progress", is_flag=True, help="Show the result, but no progress.")
@click.pass_context
def experiment(
    ctx: click.Context,
    /,
    config: str | None,
    target: str | None,
    inputs: str | None,
    input_map: tuple[str, ...],
    resume: str | None,
    dry_run: bool,
    quiet: bool,
    no_progress: bool,
    **options: Any,
) -> None:
    """Execute simulation experiments with your agent.

    Runs the agent on every input, as often as --iterations says, and saves what
    happened in each run.
    """
    kept = "nothing was written" if resume is None else "the same command goes on"
    from fluxloop import Experiment
    from fluxloop.config import default_config
    from fluxloop.lookout import with_lookout
    from fluxloop.reports.rows import text_table

    with plain_errors(f"Interrupted before the first run; {kept}."):
        is_begun = resume not in (None, "auto")  # and has its own configuration
        chosen = Experiment(
            config or (None if is_begun else default_config(optional=target is not None)),
            resume=resume,
            target=target,
            inputs=inputs,
            input_map=dict(pair(text) for text in input_map),
            progress=not (quiet or no_progress),
            **options,
        )
        if dry_run:
            tell(str(chosen.preview()))
            return
        # Taken back at the end, whatever an agent has put there: the result is told on them, and Python flushes them.
        with redirect_stdout(sys.stderr if quiet else sys.stdout), redirect_stderr(sys.stderr), with_lookout():
            result = chosen.run()
    if quiet:
        tell_path(str(result.path))
    else:
        tell(text_table(result.table()))
    if quiet and result.exit_code:
        tell(result.headline(), err=True)
        if result.summary.not_run:
            tell(result.remaining(), err=True)
    ctx.exit(result.exit_code)


def pair(text: str) -> tuple[str, str]:
    """Return what `--map FIELD=KEY` says."""
    field, separator, key = text.partition("=")
    if not separator or not field or not key:
        raise click.BadParameter(f"expected FIELD=KEY, got {text!r}", param_hint="--map")
    return field, key
