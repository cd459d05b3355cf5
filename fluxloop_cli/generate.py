"""`fluxloop generate`."""

from __future__ import annotations

import sys
from typing import Any

import click

from fluxloop_cli.completing import files
from fluxloop_cli.parameters import INTEGER_OR_NONE
from fluxloop_cli.telling import plain_errors, tell, tell_path


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def generate() -> None:
    """Generate what experiments need."""


@generate.command(
    epilog="""
Examples:

\b
  fluxloop generate inputs --limit 100 --output inputs/batch1.yaml
  fluxloop generate inputs --strategy error_prone --strategy surface --seed 7
  fluxloop generate inputs --mode llm --model gpt-4o-mini --limit 200

Exit codes: 0 the file is written, and a line says so where it holds fewer than
--limit; 1 the model's service failed, or the file could not be written; 2 something
to mend, and nothing was written; 130 Ctrl-C.
"""
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    shell_complete=files,
    help="What inputs are made of, by default configs/input.yaml. E.g. -c configs/shop.yaml",
)
@click.option("--limit", type=int, metavar="N", help="How many inputs are wanted in all. E.g. --limit 100")
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=files,
    help="Where they go, YAML or JSONL by its suffix; inputs/generated.yaml by default. E.g. --output inputs/a.jsonl",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option("--mode", metavar="MODE", help="How they are made: deterministic, or llm with a model. E.g. --mode llm")
@click.option(
    "--strategy",
    "strategies",
    metavar="NAME",
    multiple=True,
    help="In which ways, all by default; repeatable. Both modes: base, error_prone. Deterministic: surface, persona."
    " With a model: rephrase, verbose, concise, adversarial. E.g. --strategy error_prone",
)
@click.option(
    "--persona",
    "personas",
    metavar="NAME",
    multiple=True,
    help="Only this persona; repeatable. E.g. --persona novice_user",
)
@click.option(
    "--seed",
    type=INTEGER_OR_NONE,
    metavar="N",
    help="What chance comes from; the output's name by default. E.g. --seed 7",
)
@click.option("--model", metavar="NAME", help="Which model writes, in mode llm. E.g. --model gpt-4o-mini")
@click.option(
    "--base-url",
    metavar="URL",
    help="The model's service, any that is OpenAI-compatible. E.g. --base-url http://localhost:11434/v1",
)
@click.option("--parallel", type=int, metavar="N", help="Calls of the model in flight at a time. E.g. --parallel 4")
@click.option("--quiet", is_flag=True, help="Print only the path of the file.")
def inputs(config: str | None, output: str | None, quiet: bool, **options: Any) -> None:
    """Generate inputs from base inputs and personas.

    Reads configs/input.yaml and writes a file that `fluxloop run experiment --inputs`
    takes as it is. Every input says which base input it comes from.
    """
    from fluxloop.generating import generate, unfinished

    with plain_errors("Interrupted; nothing was written."):
        try:
            with click.progressbar(
                length=1, label="Generating", file=sys.stderr, hidden=quiet or not sys.stderr.isatty()
            ) as bar:

                def show(done: int, wanted: int) -> None:
                    bar.length = wanted
                    bar.update(done - bar.pos)

                made = generate(config, output=output, on_progress=show, **options)
        except KeyboardInterrupt:
            kept = unfinished(config, output)
            if kept is None:
                raise
            tell(f"Interrupted; {kept}.", err=True)
            raise click.exceptions.Exit(130) from None
    if made.remark:
        tell(f"[WARN] {made.remark}", err=True)
    if quiet:
        tell_path(str(made.path))
    else:
        tell(str(made))
