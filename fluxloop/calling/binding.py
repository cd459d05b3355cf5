"""Which argument of the target each thing becomes, decided once from its signature."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from fluxloop.calling.frameworks import Conventions
from fluxloop.calling.target import Target
from fluxloop.calling.template import fill, mentions, shaped
from fluxloop.exceptions import TargetError
from fluxloop.records import Case
from fluxloop.tracing.context import OpenRun, Run

INPUT_NAMES = (
    "input",
    "input_text",
    "message",
    "query",
    "question",
    "prompt",
    "text",
    "content",
    "user_message",
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@frozen(kw_only=True)
class Binding:
    """How one case becomes the arguments of one call."""

    target: str
    input_name: str | None
    """The parameter the input goes to; None when it goes by position."""
    spreads: bool
    """Whether a mapping may be spread as keyword arguments at all."""
    spread_required: frozenset[str]
    """What a mapping must cover to be spread."""
    spread_allowed: frozenset[str] | None
    """The keyword arguments a mapping may hold; None when there are no limits."""
    missing: tuple[str, ...]
    """Required parameters that nothing but a spread mapping can give."""
    accepts_input: bool
    args: dict[str, Any]
    inject: tuple[str, ...]
    input_template: Any
    template_needs_text: bool
    """The template is a framework's own and serves text only."""
    known: Conventions

    def problem(self, case: Case) -> str | None:
        """Say why this case cannot be bound, or None when it can."""
        value = self._shaped(case.input, None)
        if self._spreads(value):
            return None
        if self.known.state and not isinstance(value, Mapping):
            keys = ", ".join(self.known.state)
            return (
                f"{self.target} takes its state, a mapping of {keys}; say what goes in with runner.input_template, "
                f'as {{{self.known.state[0]}: "{{input}}"}}, and what comes out with runner.output_path'
            )
        if not self.accepts_input:
            return f"{self.target} takes no argument for the input"
        if self.missing:
            names = ", ".join(self.missing)
            if isinstance(value, Mapping) and self.spread_allowed is not None:
                odd = ", ".join(repr(str(key)) for key in value if key not in self.spread_allowed)
                if odd:
                    return f"{self.target} also needs {names}; the input is not spread, for {odd} is no parameter of it"
            return (
                f"{self.target} also needs {names}; give it in runner.args, list it in runner.inject, "
                "or use inputs that are mappings with these keys"
            )
        return None

    def arguments(self, case: Case, run: OpenRun) -> Arguments:
        """Return the positional and keyword arguments for a run of the case, all of them its own."""
        value = case.input
        if type(value) is not str or self.input_template is not None:
            value = self._shaped(value, run.face)
        kwargs: dict[str, Any] = fill(self.args, {"run_id": run.face.run_id}) if self.args else {}
        for name in self.inject:
            kwargs[name] = getattr(run.face, name)
        if type(value) is dict and self._spreads(value):
            return (), {**value, **kwargs}
        if self.input_name is None:
            return (value,), kwargs
        kwargs[self.input_name] = value
        return (), kwargs

    def _shaped(self, value: Any, run: Run | None) -> Any:
        needs_another = self.template_needs_text and not isinstance(value, str)
        return shaped(None if needs_another else self.input_template, value, run)

    def _spreads(self, value: Any) -> bool:
        if not self.spreads or type(value) is not dict or not all(type(key) is str for key in value):
            return False
        if not value or not self.spread_required <= value.keys():
            return False
        return self.spread_allowed is None or value.keys() <= self.spread_allowed

    def told(self, case: Case) -> str:
        """Say which argument gets what, for an input such as this one."""
        value = self._shaped(case.input, None)
        if self._spreads(value):
            parts = [f"input → {', '.join(value)}"]
        else:
            by = f"{self.known.framework}'s messages" if self.template_needs_text else "input_template"
            shaped = "" if value is case.input else f" (shaped by {by})"
            parts = [f"input → {self.input_name or 'the first argument'}{shaped}"]
        parts += [f"{name} ← {self._origin(name)}" for name in self.args]
        parts += [f"{name} ← the {name} of the run" for name in self.inject]
        return ", ".join(parts)

    def _origin(self, name: str) -> str:
        known = (self.known.args or {}).get(name)
        return f"{self.known.framework}'s own" if known is not None and known == self.args[name] else "runner.args"


def bind(
    target: Target,
    *,
    args: Mapping[str, Any],
    inject: tuple[str, ...],
    input_template: Any,
    known: Conventions,
) -> Binding:
    """Decide how inputs become arguments of the target.

    Args:
        target: what is called.
        args: constant arguments; `{run_id}` in them is fresh for each attempt.
        inject: which of `persona, iteration, metadata, expected` are passed too.
        input_template: what the input is put into, or None.
        known: the conventions of the target's framework, used where `args` and
            `input_template` say nothing.

    Raises:
        TargetError: a constant or injected argument is no parameter of the target.
    """
    if input_template is not None and not mentions(input_template, "input"):
        raise TargetError("runner.input_template: {input} does not occur in it, so no input would reach the agent")
    constants = _merged(known.args or {}, args)
    parameters = _parameters(target.function)
    keywords, takes_any = _keywords(parameters)
    for name in constants:
        _require(target, name, keywords, takes_any, f"runner.args.{name}")
    for name in inject:
        _require(target, name, keywords, takes_any, f"runner.inject: {name}")
    given = {*constants, *inject}
    free = [p for p in parameters if p.name not in given or p.kind is p.POSITIONAL_ONLY]
    chosen, by_position = _input_parameter(free)
    required = [
        p.name
        for p in free
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    names = frozenset(p.name for p in free if p.name in keywords)
    return Binding(
        target=target.reference,
        input_name=None if chosen is None or by_position else chosen.name,
        spreads=known.spreads and not any(p.kind is p.POSITIONAL_ONLY and p.default is p.empty for p in parameters),
        spread_required=frozenset(required),
        spread_allowed=None if takes_any else names,
        missing=tuple(name for name in required if chosen is None or name != chosen.name),
        accepts_input=chosen is not None,
        args=constants,
        inject=inject,
        input_template=known.input_template if input_template is None else input_template,
        template_needs_text=input_template is None,
        known=known,
    )


def _merged(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given over what is known, mapping by mapping: a recursion limit keeps the thread id beside it."""
    merged = {**known, **given}
    for name in known.keys() & given.keys():
        if isinstance(known[name], Mapping) and isinstance(given[name], Mapping):
            merged[name] = _merged(known[name], given[name])
    return merged


_ANY = inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell: it gets the input and nothing else
        return [_ANY]


def _keywords(parameters: list[inspect.Parameter]) -> tuple[set[str], bool]:
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _input_parameter(free: list[inspect.Parameter]) -> tuple[inspect.Parameter | None, bool]:
    """The parameter the input goes to, and whether it goes by position."""
    by_name = {p.name: p for p in free if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for name in INPUT_NAMES:
        if name in by_name:
            return by_name[name], False
    for parameter in free:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            return parameter, True
        if parameter.kind is not parameter.VAR_KEYWORD:
            return parameter, False
    return None, False


def _require(target: Target, name: str, keywords: set[str], takes_any: bool, key: str) -> None:
    if name in keywords or takes_any:
        return
    close = difflib.get_close_matches(name, keywords, 1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(sorted(keywords)) or 'none'}"
    raise TargetError(f"{key}: {target.reference} has no parameter {name!r}{hint}")
