"""What options take beside the types that click has."""

from __future__ import annotations

from typing import Any

import click


class _OrNone(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    def __init__(self, of: Any) -> None:
        self._of = of
        self.name = of.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fluxloop.config import lifts

        return value if lifts(value) else self._of.convert(value, param, ctx)


# The texts `none` and `null`, which lift the configuration's value, are left to the library.
INTEGER_OR_NONE = _OrNone(click.INT)
NUMBER_OR_NONE = _OrNone(click.FLOAT)
