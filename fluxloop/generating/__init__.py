"""Input variations: from a few inputs, personas and a seed, or a model, to as many as wanted."""

from __future__ import annotations

from fluxloop.generating.pipeline import Generated, generate, unfinished

__all__ = ["Generated", "generate", "unfinished"]
