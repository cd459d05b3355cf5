"""Inputs, checked whole before the first run and then streamed as often as needed."""

from __future__ import annotations

import base64
import errno
import os
import pickle
import tempfile
import threading
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, frozen

from fluxloop.exceptions import FluxloopError, InputError, Problem
from fluxloop.inputs.copyable import copy_problem
from fluxloop.inputs.entry import EntryError, case_from
from fluxloop.inputs.given import listed
from fluxloop.inputs.readers import READERS, Row
from fluxloop.plan import Cases
from fluxloop.records import Case
from fluxloop.tracing.capture import capture

MAX_PROBLEMS = 20
"""Different problems told of one file before reading stops."""
MAX_LISTED = 20
"""Ids or personas a message lists."""

MAX_PATH = 200
"""Characters shown of what is no file, for it may be a text that was taken for one."""

_CHUNK = 1 << 18
_PICKLED = b"="
"""Before a case that JSON would change; no JSON begins so."""

Check = Callable[[Case], "str | None"]
"""Says why a case cannot be run, or None."""


@frozen(kw_only=True)
class Selection:
    """Which of the inputs are run."""

    personas: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    limit: int | None = None


@frozen(kw_only=True)
class Inputs:
    """Checked inputs: count, digest, and the cases to pass over.

    Example:
        >>> inputs = inputs_from(["hi", {"input": "bye", "persona": "novice"}])
        >>> [case.id for case in inputs.cases]
        ['input_001', 'input_002']
    """

    cases: Cases
    digest: str
    """Of the selected cases in order, however the file writes them."""
    empty_rows: int = 0
    """Rows of a table whose cells are all empty, which are no inputs."""


def inputs_from(
    source: Path | Iterable[Any],
    *,
    names: Mapping[Any, str] | None = None,
    selection: Selection | None = None,
    check: Check = lambda case: None,
) -> Inputs:
    """Read, check, count and digest inputs.

    Args:
        source: a YAML, JSONL or CSV file by its suffix, or entries: texts, mappings, `Case`s, or the rows
            of a data frame.
        names: which key of an entry to take for `input`, `id` and so on.
        selection: which of them are run; all by default.
        check: says why a case cannot be run, or None.

    Raises:
        InputError: the file cannot be read, or some of its entries are wrong.
    """
    selection = selection or Selection()
    if isinstance(source, Path):
        try:
            spill = _Spill()
            scan = _Scan(str(source), selection, check, spill.add)
            scan.all(lambda: _entries(source), names or {})
            return Inputs(cases=spill.finish(), digest=scan.digest, empty_rows=scan.empty_rows)
        except OSError as error:
            what = (
                f"cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to a roomier folder"
            )
            raise InputError([Problem(str(source), what)]) from None
    entries = listed(source)
    kept: list[Case] = []
    scan = _Scan("inputs", selection, check, lambda case, line: kept.append(case))
    scan.all(lambda: enumerate(entries, 1), names or {})
    return Inputs(cases=kept, digest=scan.digest, empty_rows=scan.empty_rows)


def _entries(path: Path) -> Iterator[tuple[int, Any]]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        what = f"expected a file that ends in {', '.join(READERS)}, got {path.suffix or 'no suffix'}"
        where = str(path)
        if not os.path.exists(path):
            what = f"no such file; {what}; from Python, give texts in a list, as inputs=['…']"
            where = where if len(where) <= MAX_PATH else f"{where[:MAX_PATH]}…"
        raise InputError([Problem(where, what)])
    try:
        yield from reader(path)
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        raise InputError([Problem(str(path), f"inputs: {what}; name another with --inputs")]) from None


@define
class _Fault:
    """What is wrong with one entry or more."""

    line: int
    """Of the first."""
    id: str | None
    """Of the first, where the message is about its input."""
    count: int = 0


class _Scan:
    """One pass over all entries."""

    def __init__(self, place: str, selection: Selection, check: Check, keep: Callable[[Case, bytes], None]) -> None:
        self._place = place
        self._selection = selection
        self._check = check
        self._keep = keep
        self._encode = msgspec.json.Encoder().encode
        self._digest = blake2b(digest_size=16)
        self._faults: dict[str, _Fault] = {}
        self._ids = _SeenIds()
        self._personas: set[str] = set()
        self._some_ids: list[str] = []
        self._found: set[str] = set()
        self._selective = selection != Selection()
        self._kept = 0
        self._total = 0
        self.empty_rows = 0

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def all(self, entries: Callable[[], Iterable[tuple[int, Any]]], names: Mapping[str, str]) -> None:
        try:
            for line, entry in entries():
                if _is_no_row(entry):
                    self.empty_rows += 1
                else:
                    self._one(line, entry, names)
        except InputError as error:
            raise InputError([*self._problems, *error.problems]) from None
        if self._problems:
            raise InputError(self._problems)
        if not self._total:
            raise InputError([Problem(self._place, "holds no inputs; it needs at least one")])
        if repeated := self._ids.repeated():
            rows = (one for one in entries() if not _is_no_row(one[1]))
            self._name_repeated(rows, names, repeated)
        if problem := self._not_there():
            raise InputError([Problem(self._place, problem)])

    def _one(self, line: int, entry: Any, names: Mapping[str, str]) -> None:
        self._total += 1
        try:
            case = _case(entry, self._total - 1, names)
        except EntryError as error:
            self._problem(line, str(error))
            return
        self._ids.add(case.id)
        if self._selective:
            self._note(case)
            if not self._selects(case):
                return
        if type(case.input) is not str and (problem := copy_problem(case.input)) is not None:
            self._problem(line, problem, case.id)
            return
        if (problem := self._check(case)) is not None:
            self._problem(line, problem)
            return
        self._kept += 1
        case, encoded = self._plain(case)
        self._digest.update(encoded)
        self._keep(case, encoded)

    def _plain(self, case: Case) -> tuple[Case, bytes]:
        """The case with all but its input made plain, and its line; the input may be any object of Python."""
        value = case.input
        if type(value) is str and value.isascii() and case.expected is None and case.metadata is None:
            try:
                return case, self._encode(case) + b"\n"
            except UnicodeEncodeError:  # Python's id or persona holds half a character
                return self._captured(case)
        return self._captured(case)

    def _captured(self, case: Case) -> tuple[Case, bytes]:
        told = [capture(part) for part in (case.id, case.input, case.persona, case.expected, case.metadata)]
        shown = Case(case.index, *told)
        case = Case(case.index, shown.id, case.input, shown.persona, shown.expected, shown.metadata)
        return case, self._encode(shown) + b"\n"

    def _selects(self, case: Case) -> bool:
        wanted = self._selection
        if wanted.personas and case.persona not in wanted.personas:
            return False
        if wanted.ids and case.id not in wanted.ids:
            return False
        return wanted.limit is None or self._kept < wanted.limit

    def _problem(self, line: int, message: str, id: str | None = None) -> None:
        fault = self._faults.setdefault(message, _Fault(line, id))
        fault.count += 1
        if len(self._faults) >= MAX_PROBLEMS:
            raise InputError([Problem(self._place, f"reading stopped after {MAX_PROBLEMS} problems")])

    @property
    def _problems(self) -> list[Problem]:
        """One for each message, at the first line it is true of: the mistake of a column is every row's."""
        problems = []
        for message, fault in self._faults.items():
            count = fault.count
            more = f" (and so for {count - 1} more {'entry' if count == 2 else 'entries'})" if count > 1 else ""
            problems.append(Problem(f"{self._place}:{fault.line}", message + more, fault.id))
        return problems

    def _name_repeated(self, entries: Iterable[tuple[int, Any]], names: Mapping[str, str], hashes: set[int]) -> None:
        """Read again for the ids behind equal hashes and raise where they are equal too."""
        first: dict[str, int] = {}
        for index, (line, entry) in enumerate(entries):
            id = _case(entry, index, names).id
            if hash(id) not in hashes:
                continue
            if id in first:
                self._problem(line, f"the id {id!r} is that of line {first[id]} already; ids must differ")
            first.setdefault(id, line)
        if self._problems:
            raise InputError(self._problems)

    def _note(self, case: Case) -> None:
        """Remember what there is to select, in bounds, and what was found of it."""
        if case.id in self._selection.ids:
            self._found.add(case.id)
        if len(self._some_ids) < MAX_LISTED:
            self._some_ids.append(case.id)
        if case.persona is not None and (len(self._personas) < 1000 or case.persona in self._selection.personas):
            self._personas.add(case.persona)

    def _not_there(self) -> str | None:
        """Say what was selected and is not there; one of several may be a typo, too."""
        wanted = self._selection
        if absent := [persona for persona in wanted.personas if persona not in self._personas]:
            there = ", ".join(sorted(self._personas)[:MAX_LISTED]) or "no input has one"
            return f"no input has the persona {', '.join(map(repr, absent))}; personas here: {there}"
        if absent := [id for id in wanted.ids if id not in self._found]:
            more = ", …" if self._total > len(self._some_ids) else ""
            return f"no input has the id {', '.join(map(repr, absent))}; ids here: {', '.join(self._some_ids)}{more}"
        if not self._kept:
            return "no input has both one of the personas and one of the ids selected"
        return None


def _is_no_row(entry: Any) -> bool:
    return isinstance(entry, Row) and entry.is_none


def _case(entry: Any, index: int, names: Mapping[str, str]) -> Case:
    return entry if isinstance(entry, Case) else case_from(entry, index, names)


class _SeenIds:
    """Whether ids repeat, in eight bytes each: hashes in buckets, looked through once at the end."""

    _BUCKETS = 256

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(self._BUCKETS)]

    def add(self, id: str) -> None:
        number = hash(id)
        self._hashes[number % self._BUCKETS].append(number)

    def repeated(self) -> set[int]:
        found: set[int] = set()
        for bucket in self._hashes:
            if len(set(bucket)) < len(bucket):
                found.update(number for number, count in Counter(bucket).items() if count > 1)
        return found


class _Spill:
    """Cases on disk as JSON lines, in a file without a name that no later edit or clean-up can reach."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="fluxloop-inputs-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # also where a cycle keeps it, without a ResourceWarning
        self._lock = threading.Lock()
        self._count = 0
        self._decode = msgspec.json.Decoder(Case).decode

    def add(self, case: Case, line: bytes) -> None:
        """Keep a case, of which the line is what readers of JSON get: text for a number of more than 64 bits."""
        if type(case.input) is not str and self._decode(line) != case:
            line = _PICKLED + base64.b64encode(pickle.dumps(case)) + b"\n"
        self._file.write(line)
        self._count += 1

    def finish(self) -> _Spill:
        self._file.flush()
        return self

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Case]:
        """Pass over the cases from the first; several passes may be under way at once."""
        decode = self._decode
        offset, rest = 0, b""
        while chunk := self._read(offset):
            offset += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield pickle.loads(base64.b64decode(line[1:])) if line.startswith(_PICKLED) else decode(line)

    def _read(self, offset: int) -> bytes:
        with self._lock:  # the file has one place, which all passes share
            try:
                self._file.seek(offset)
                return self._file.read(_CHUNK)
            except OSError as error:
                why = error.strerror or error
                if error.errno == errno.EBADF:
                    why = "the agent has closed the files of its process; run it with executor processes"
                raise FluxloopError(f"the inputs cannot be read again: {why}") from error
