"""What fluxloop raises.

FluxloopError
├── UsageError            the user can mend it; nothing has run
│   ├── ConfigError       the configuration, all its problems at once
│   ├── InputError        the inputs, with file and line
│   ├── TargetError       the agent cannot be loaded or bound
│   ├── ResumeError       what is to go on would not be the same experiment
│   ├── OutputError       the experiment directory cannot be made or read
│   ├── MergeError        the directories are not the shards of one experiment, or not all of them
│   └── MissingPackageError
├── GenerationError       inputs could not be generated; what there is of them is kept
└── SinkError             results could not be written; what was written is safe
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from fluxloop.tracing.redaction import without_secrets
from fluxloop.visible import visible, visible_line


class FluxloopError(Exception):
    """The root of every error fluxloop raises; its message tells none of the environment's secrets."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.redact(without_secrets)

    def __str__(self) -> str:
        return visible(super().__str__())  # it quotes files, names and what was typed

    def redact(self, redact: Callable[[str], str]) -> None:
        """Mask what is secret in the message."""
        self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)


@contextmanager
def redacted(redact: Callable[[str], str]) -> Iterator[None]:
    """Mask what is secret in the errors of fluxloop that pass."""
    try:
        yield
    except FluxloopError as error:
        error.redact(redact)
        raise


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
        return visible_line(": ".join(part for part in parts if part))


def _redacted(problem: Problem, redact: Callable[[str], str]) -> Problem:
    key = None if problem.key is None else redact(problem.key)
    return Problem(redact(problem.where), redact(problem.message), key)


class _ProblemsError(UsageError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def redact(self, redact: Callable[[str], str]) -> None:
        super().redact(redact)
        self.problems = tuple(_redacted(problem, redact) for problem in self.problems)


class ConfigError(_ProblemsError):
    """The configuration is wrong; `problems` holds every fault found."""


class InputError(_ProblemsError):
    """The inputs are wrong; `problems` holds the faults found."""


class ResumeError(_ProblemsError):
    """What is to go on would not be the same experiment; `problems` holds every difference."""


class TargetError(UsageError):
    """The target cannot be imported, called or given its input."""


class OutputError(UsageError):
    """An experiment directory cannot be made or read."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(f"{path}: {message}")


class MergeError(_ProblemsError):
    """The directories are not the shards of one experiment, or not all; `problems` holds why."""


class MissingPackageError(UsageError):
    """An optional package is not installed.

    Args:
        package: its name.
        purpose: what needs it.
        install: what pip is to install, where that is more than the package.
    """

    def __init__(self, package: str, purpose: str, install: str | None = None) -> None:
        self.package = package
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install {install or package}")


class GenerationError(FluxloopError):
    """The model's service failed, or the inputs could not be written; what there is of them is kept."""


class SinkError(FluxloopError):
    """The results could not be written, so the experiment stopped."""
