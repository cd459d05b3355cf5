"""What fluxloop raises.

FluxloopError
├── UsageError            the user can mend it; nothing has run
│   ├── ConfigError       the configuration, all its problems at once
│   ├── InputError        the inputs, with file and line
│   ├── TargetError       the agent cannot be loaded or bound
│   ├── OutputError       the experiment directory cannot be made or read
│   └── MissingPackageError
└── SinkError             results could not be written; what was written is safe
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen


class FluxloopError(Exception):
    """The root of every error fluxloop raises."""


class UsageError(FluxloopError):
    """A mistake the user can mend, found before any run."""


@frozen
class Problem:
    """One thing wrong with a file or an option: where, what was expected, what was found."""

    where: str
    """`file:line:column`, an option, or the name of an environment variable."""
    message: str
    key: str | None = None

    def __str__(self) -> str:
        parts = [self.where, self.key, self.message]
        return ": ".join(part for part in parts if part)


class _ProblemsError(UsageError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class ConfigError(_ProblemsError):
    """The configuration is wrong; `problems` holds every fault found."""


class InputError(_ProblemsError):
    """The inputs are wrong; `problems` holds the faults found."""


class TargetError(UsageError):
    """The target cannot be imported, called or given its input."""


class OutputError(UsageError):
    """An experiment directory cannot be made or read."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")


class MissingPackageError(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        self.package = package
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install {package}")


class SinkError(FluxloopError):
    """The results could not be written, so the experiment stopped."""
