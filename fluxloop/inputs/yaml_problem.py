"""What a YAML parser says of a file, in the words of ours."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from fluxloop.exceptions import Problem
from fluxloop.inputs.text import not_text


def yaml_problem(path: Path, error: Exception) -> Problem:
    """Return what an error of a YAML parser says as a problem of the file; its classes differ by the parser."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return Problem(f"{path}:{mark.line + 1}:{mark.column + 1}", f"not valid YAML: {_what(path, error, mark)}")
    if isinstance(error, UnicodeDecodeError) or hasattr(error, "character"):  # the latter of a reader
        return not_text(path, control=True)
    return Problem(str(path), f"not valid YAML: {error}")


def _what(path: Path, error: Any, mark: Any) -> str:
    what = " ".join(part for part in (error.problem, f"({error.context})" if error.context else "") if part)
    if what.startswith("but "):
        what = f"{error.context}, {error.problem}"
    if "escape code" in what:
        what += r"; half a character needs its other half beside it, and a text that reads so two \\"
    if "cannot start any token" in what and _character(path, mark) == "\t":
        what += "; YAML is indented with spaces, not tabs"
    if "expected node content" in what and (sign := _character(path, mark)) in (":", "?"):
        what += f"; a text that begins with {sign} goes in quotes"
    return what


def _character(path: Path, mark: Any) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next(islice(file, mark.line, None), "")
    return line[mark.column : mark.column + 1]
