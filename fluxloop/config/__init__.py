"""The configuration: what it holds, where it comes from, how it is told."""

from __future__ import annotations

from fluxloop.config.convert import lifts
from fluxloop.config.load import DEFAULT_CONFIG, LoadedConfig, default_config, load_config
from fluxloop.config.model import ExperimentConfig, InputsConfig, OutputConfig, RunnerConfig, SinkConfig
from fluxloop.config.snapshot import snapshot

__all__ = [
    "DEFAULT_CONFIG",
    "ExperimentConfig",
    "InputsConfig",
    "LoadedConfig",
    "OutputConfig",
    "RunnerConfig",
    "SinkConfig",
    "default_config",
    "lifts",
    "load_config",
    "snapshot",
]
