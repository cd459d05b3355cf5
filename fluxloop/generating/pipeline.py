"""Material → a file of inputs, from the first check to the last line."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve, frozen

from fluxloop.arguments import as_list
from fluxloop.config.convert import given_text
from fluxloop.exceptions import FluxloopError, GenerationError, UsageError
from fluxloop.generating.deterministic import variations
from fluxloop.generating.llm import kinds, open_service, write_variations
from fluxloop.generating.material import as_written
from fluxloop.generating.partial import Partial, partial_path
from fluxloop.generating.settings import BASE, DEFAULT_CONFIG, STRATEGIES, Material, Persona, load_material, root_of
from fluxloop.generating.writing import check_output, write_entries

DEFAULT_OUTPUT = Path("inputs/generated.yaml")
"""Below the project root."""

Progress = Callable[[int, int], None]
"""Told how many inputs there are, and how many are wanted."""


@frozen(kw_only=True)
class Generated:
    """A file of inputs, and how it came about."""

    path: Path
    count: int
    limit: int
    """How many were wanted."""
    mode: str
    seed: int
    by_strategy: dict[str, int]

    @property
    def remark(self) -> str | None:
        """What falls short of what was wanted, and what to do; None when nothing does."""
        if self.count < self.limit:
            who, other = (
                ("the material gives", ", and so does --mode llm")
                if self.mode == "deterministic"
                else ("the model gave", "")
            )
            more = f"; more base_inputs, personas or strategies give more{other}"
            return f"{who} {self.count} distinct inputs, not {self.limit}{more}"
        if set(self.by_strategy) == {BASE} and self.limit:
            return (
                "the base inputs alone reach the limit, none is varied; raise --limit, or leave base out by --strategy"
            )
        return None

    def __str__(self) -> str:
        told = ", ".join(f"{count} {strategy}" for strategy, count in self.by_strategy.items())
        return f"{self.count} inputs ({told}) in {self.path}; seed {self.seed}"


def generate(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    mode: str | None = None,
    strategies: Sequence[str] = (),
    personas: Sequence[str] = (),
    seed: int | str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    parallel: int | None = None,
    overwrite: bool = False,
    on_progress: Progress = lambda done, wanted: None,
) -> Generated:
    """Generate inputs and write them to a file that an experiment takes as it is.

    The file is there whole or not at all. What a model has written before a generation was cut
    short is kept beside it, and the same call goes on from there.

    Args:
        config: `configs/input.yaml` by default, or its content as a mapping.
        output: the file, YAML or JSONL by its suffix; `inputs/generated.yaml` by default.
        limit: how many inputs are wanted in all.
        mode: `deterministic` or `llm`.
        strategies: how inputs are made; all of the mode by default.
        personas: only these.
        seed: what chance comes from; by default, and where it is `"none"`, it follows from the output's name.
        model: which one writes, in mode `llm`.
        base_url: of the model's service.
        parallel: calls of the model in flight at a time.
        overwrite: replace the output if it is there.
        on_progress: told how far it is.

    Raises:
        ConfigError: the configuration is wrong; with every problem.
        UsageError: something else to mend; nothing was written.
        GenerationError: the model's service failed, or the file could not be written.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "inputs.jsonl")
        >>> generate({"base_inputs": ["How do I start?"]}, output=path, limit=20).count
        20
    """
    personas = as_list("personas", personas, "['novice']")
    strategies = as_list("strategies", strategies, "['base']")
    given = {"limit": limit, "mode": mode, "strategies": strategies, "seed": seed}
    given |= {"model": model, "base_url": base_url, "parallel": parallel}
    material = load_material(_source(config), overrides={key: given_text(one) for key, one in given.items()})
    settings = material.config.input_generation
    path = _output(material.root, output)
    check_output(path, overwrite=overwrite)
    drawn = settings.seed if settings.seed is not None else _seed_of(path.stem)
    settings = evolve(settings, seed=drawn, strategies=settings.strategies or STRATEGIES[settings.mode])
    material = evolve(material, config=evolve(material.config, input_generation=settings))
    chosen = _chosen(material, personas)
    material = evolve(material, sources=_of_personas(material, personas))
    make = _write_deterministic if settings.mode == "deterministic" else _write_llm
    counts = make(material, chosen, drawn, path, overwrite, on_progress)
    return Generated(
        path=path,
        count=counts.total(),
        limit=settings.limit,
        mode=settings.mode,
        seed=drawn,
        by_strategy=dict(counts),
    )


def unfinished(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None, output: str | os.PathLike[str] | None = None
) -> str | None:
    """Say what an interrupted generation has kept of its output and how it goes on; None when it has nothing.

    Args:
        config: as `generate` was given it.
        output: likewise.
    """
    return _left(_output(root_of(_source(config)), output))


def _output(root: Path, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        return Path(output)
    here = Path.cwd()
    path = root / DEFAULT_OUTPUT
    return path.relative_to(here) if path.is_relative_to(here) else path


def _left(output: Path) -> str | None:
    path = partial_path(output)
    try:
        kept = path.read_bytes().count(b"\n")
    except OSError:
        return None
    what = "input of the model is" if kept == 1 else "inputs of the model are"
    return f"{kept} {what} kept in {path}, and the same command goes on from there" if kept else None


def _source(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Path | Mapping[str, Any]:
    return config if isinstance(config, Mapping) else Path(DEFAULT_CONFIG if config is None else config)


def _seed_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).digest())


def _chosen(material: Material, names: Sequence[str]) -> list[Persona]:
    personas = {one.name: one for one in material.config.personas}
    there = {*personas, *(source.persona for source in material.sources if source.persona is not None)}
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, sorted(there), 1)
            hint = f"did you mean {close[0]!r}?" if close else f"personas here: {', '.join(sorted(there)) or 'none'}"
            raise UsageError(f"--persona: {material.name} has no persona {name!r}; {hint}")
    return [one for one in personas.values() if not names or one.name in names]


def _of_personas(material: Material, names: Sequence[str]) -> tuple[Any, ...]:
    """Base inputs that are nobody's are everybody's."""
    found = tuple(one for one in material.sources if not names or one.persona is None or one.persona in names)
    if not found:
        raise UsageError(
            f"--persona: no base input of {material.name} is of {', '.join(map(repr, names))}, or of nobody"
        )
    return found


def _remark(material: Material, seed: int) -> str:
    settings = material.config.input_generation
    model = f", model {settings.model!r}" if settings.mode == "llm" else ""
    return f"Made by fluxloop generate inputs: {settings.mode}{model}, seed {seed}."


def _write_deterministic(
    material: Material, personas: list[Persona], seed: int, path: Path, overwrite: bool, on_progress: Progress
) -> Counter[str]:
    settings = material.config.input_generation
    counts: Counter[str] = Counter()
    entries = islice(variations(material.sources, personas, settings, seed), settings.limit)
    write_entries(
        path,
        _counted(entries, counts, settings.limit, on_progress),
        overwrite=overwrite,
        remark=_remark(material, seed),
    )
    if not counts:
        raise UsageError(
            f"{material.name}: the material gives no input by {', '.join(settings.strategies)}; nothing was written."
            " Strategies need texts to vary, and persona needs personas"
        )
    return counts


def _write_llm(
    material: Material, personas: list[Persona], seed: int, path: Path, overwrite: bool, on_progress: Progress
) -> Counter[str]:
    settings = material.config.input_generation
    service = open_service(material, os.environ)
    limit = settings.limit
    base = [as_written(one) for one in material.sources][:limit] if BASE in settings.strategies else []
    counts: Counter[str] = Counter()
    with service.client, Partial(path, _digest(material, personas, seed), overwrite=overwrite) as partial:
        there = dict(partial.entries)

        def keep(number: int, entry: dict[str, Any]) -> None:
            partial.add(number, entry)
            on_progress(len(base) + len(partial.entries), limit)

        on_progress(len(base) + len(there), limit)
        try:
            asked = kinds(material, personas, seed)
            write_variations(material, service, asked, count=limit - len(base), there=there, keep=keep)
            written = [partial.entries[number] for number in sorted(partial.entries)]
            entries = [*base, *written][:limit]
            if not entries:
                raise GenerationError("the model gave no text that is new")
            counted = _counted(iter(entries), counts, limit, lambda *_: None)
            write_entries(path, counted, overwrite=overwrite, remark=_remark(material, seed))
        except FluxloopError as error:
            kind = UsageError if isinstance(error, UsageError) else GenerationError
            left = _left(path) or "nothing was written"
            told = str(error).rstrip(".")  # what the service said may end with one
            raise kind(f"{told}. {left[0].upper()}{left[1:]}") from error
        partial.discard()
    return counts


def _digest(material: Material, personas: Sequence[Persona], seed: int) -> str:
    settings = material.config.input_generation
    told = (
        [as_written(source) for source in material.sources],
        personas,
        settings.strategies,
        settings.model,
        settings.args,
        seed,
    )
    return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def _counted(
    entries: Iterator[dict[str, Any]], counts: Counter[str], limit: int, on_progress: Progress
) -> Iterator[dict[str, Any]]:
    for entry in entries:
        counts[entry.get("strategy", BASE)] += 1
        if counts.total() % 1000 == 0:
            on_progress(counts.total(), limit)
        yield entry
