"""Limits that end a session: they are the session's own, and do not bind the one that goes on."""

from __future__ import annotations

import attrs

from fluxloop.config import LoadedConfig, RunnerConfig

_NAMES = ("max_failures", "stop_when_all_fail", "max_time")

LIMITS = tuple(f"runner.{name}" for name in _NAMES)


def lift_limits(loaded: LoadedConfig) -> LoadedConfig:
    """Return the configuration that an ended session has left without its limits, except those given anew."""
    if ("runner",) in loaded.applied:
        return loaded
    lifted = {name for name in _NAMES if ("runner", name) not in loaded.applied}
    defaults = RunnerConfig()
    runner = attrs.evolve(loaded.config.runner, **{name: getattr(defaults, name) for name in lifted})
    section = {key: value for key, value in (loaded.given.get("runner") or {}).items() if key not in lifted}
    return attrs.evolve(
        loaded,
        config=attrs.evolve(loaded.config, runner=runner),
        references={
            path: text for path, text in loaded.references.items() if path[:1] != ("runner",) or path[1] not in lifted
        },
        given={**loaded.given, "runner": section},
    )
