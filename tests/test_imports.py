"""The house: imports run one way. A new module adds its row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAF = ()

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "__init__": LEAF,  # beyond TYPE_CHECKING it imports what is asked for, when it is asked for
    "visible": LEAF,
    "records": ("visible",),
    "tracebacks": ("records",),
    "clock": LEAF,
    "system": LEAF,
    "statistics": LEAF,
    "verdict": LEAF,
    "clusters": LEAF,
    "background": ("system",),
    "interrupt": ("clock", "system"),
    "notices": ("visible",),
    "pace": LEAF,
    "client_errors": ("clock", "interrupt"),
    "failures": ("client_errors", "interrupt"),
    "stacks": LEAF,
    "rates": ("clock", "pace"),
    "provenance": ("__init__",),
    "plan": ("records",),
    "schedule": (
        "records",
        "pace",
        "verdict",
    ),
    "summary": (
        "records",
        "schedule",
        "statistics",
        "tracebacks",
        "clusters",
        "verdict",
    ),
    "tracing": ("records", "clock", "interrupt"),
    "exceptions": (
        "tracing",
        "visible",
    ),
    "arguments": ("exceptions",),
    "recording": ("clock", "tracing"),
    "calling": ("records", "clock", "system", "plan", "exceptions", "tracing", "recording"),
    "attempt": ("records", "clock", "system", "failures", "tracing"),
    "deadlines": (
        "stacks",
        "attempt",
        "clock",
    ),
    "open_target": (
        "records",
        "notices",
        "exceptions",
        "interrupt",
        "rates",
        "tracing",
        "calling",
        "attempt",
        "deadlines",
    ),
    "lane": ("records", "interrupt", "exceptions", "stacks", "calling", "attempt", "open_target"),
    "runner": (
        "records",
        "exceptions",
        "failures",
        "tracing",
        "calling",
        "attempt",
        "open_target",
        "lane",
        "interrupt",
    ),
    "executors": (
        "records",
        "notices",
        "clock",
        "exceptions",
        "schedule",
        "stacks",
        "calling",
        "attempt",
        "lane",
        "runner",
        "system",
    ),
    "store": (
        "records",
        "clock",
        "system",
        "plan",
        "exceptions",
        "verdict",
    ),
    "lookout_process": LEAF,
    "lookout": ("__init__", "clock", "system"),
    "watch": (
        "lookout",
        "records",
        "clock",
        "interrupt",
        "schedule",
        "stacks",
        "calling",
        "system",
        "store",
    ),
    "sinks": ("records", "exceptions", "store", "summary", "tracing"),
    "inputs": ("records", "interrupt", "exceptions", "arguments", "plan", "tracing"),
    "config": ("exceptions", "pace", "plan", "inputs", "store", "tracing"),
    "executors.chosen": ("exceptions", "config", "pace", "plan", "schedule"),
    "executors.remote.cluster": ("exceptions", "system"),
    "executors.remote.local": ("clock", "schedule", "system"),
    "executors.remote.printing": ("system",),
    "executors.remote.relay": ("__init__", "clock", "schedule", "system"),
    "executors.remote.relayed": ("notices", "__init__", "clock", "schedule"),
    "executors.remote.dispatch": ("notices", "records", "clock", "exceptions", "pace", "schedule", "attempt", "runner"),
    "executors.remote.granting": ("clock", "rates"),
    "executors.remote.messages": ("records", "store", "tracing"),
    "executors.remote.process": ("exceptions", "interrupt", "stacks", "system", "tracing"),
    "executors.remote.sending": ("records", "exceptions", "tracing", "runner"),
    "executors.remote.executor": (
        "records",
        "exceptions",
        "schedule",
        "open_target",
        "runner",
        "rates",
    ),
    "executors.remote.worker": (
        *(
            "notices",
            "records",
            "exceptions",
            "stacks",
            "rates",
            "tracing",
            "calling",
            "attempt",
            "open_target",
            "lane",
        ),
        "runner",
    ),
    "sinks.configured": ("exceptions", "calling", "config", "tracing"),
    "progress": (
        "records",
        "clock",
        "schedule",
        "summary",
        "verdict",
        "visible",
    ),
    "first_runs": (
        "progress",
        "records",
        "tracebacks",
        "visible",
    ),
    "exit": (
        "progress",
        "system",
        "tracing",
        "visible",
    ),
    "execution": (
        "records",
        "notices",
        "clock",
        "exceptions",
        "interrupt",
        "plan",
        "schedule",
        "runner",
        "executors",
        "watch",
        "store",
        "sinks",
        "summary",
        "progress",
        "tracing",
        "first_runs",
        "visible",
        "lookout",
    ),
    "reports": (
        "summary",
        "progress",
        "visible",
    ),
    "resuming": (
        *("records", "system", "exceptions", "config", "plan", "progress", "provenance", "store", "summary"),
        *("tracing", "verdict"),
    ),
    "listing": (
        "clock",
        "exceptions",
        "config",
        "store",
        "summary",
        "verdict",
    ),
    "reports.experiments": (
        "listing",
        "progress",
        "visible",
    ),
    "reports.folder": (
        "exceptions",
        "store",
    ),
    "reports.page": ("records", "progress", "tracebacks"),
    "reports.markdown": (
        "records",
        "exceptions",
        "progress",
        "store",
        "summary",
        "tracebacks",
        "notices",
    ),
    "verifying": (
        "records",
        "exceptions",
        "config",
        "plan",
        "progress",
        "store",
        "summary",
        "tracing",
        "visible",
    ),
    "result": (
        "records",
        "exceptions",
        "progress",
        "store",
        "summary",
        "reports",
        "verifying",
        "visible",
    ),
    "merging": ("exceptions", "config", "plan", "store", "summary", "resuming", "result"),
    "subject": (
        "records",
        "exceptions",
        "calling",
        "config",
        "executors",
        "inputs",
        "progress",
        "recording",
        "resuming",
        "runner",
        "tracing",
        "failures",
    ),
    "generating": (
        "clock",
        "exceptions",
        "failures",
        "inputs",
        "config",
        "store",
        "tracing",
        "arguments",
    ),
    "scaffold": ("__init__", "exceptions", "inputs", "config", "generating"),
    "testing": ("records", "exceptions", "arguments", "schedule", "runner", "inputs", "tracing"),
}  # `experiment` joins: it may import everything
PURE = ("records", "pace", "plan", "schedule", "statistics", "clusters", "verdict")
OUTSIDE = {"os", "io", "sys", "time", "datetime", "random", "secrets", "pathlib", "tempfile", "threading", "asyncio"}


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions; not what only a type checker sees."""
    tree = ast.parse(path.read_text())
    unseen = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in unseen for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found.add(str(node.module))
    return found


def part(module: str) -> str:
    """The row of a module: the package or top module below fluxloop it belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


MODULES = sorted((ROOT / "fluxloop").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT / "fluxloop").with_suffix("")) for path in MODULES]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_run_one_way(path: Path) -> None:
    """A module imports what its row allows, its own package, and never the command line or the package root."""
    parts = path.relative_to(ROOT / "fluxloop").with_suffix("").parts
    here, row = parts[0], ".".join(parts)
    found = imports(path)
    assert not {name for name in found if name.partition(".")[0] in ("click", "fluxloop_cli")}
    inside = {part(name) for name in found if name.partition(".")[0] == "fluxloop"} - {here}
    if here != "experiment":
        assert inside <= set(MAY_IMPORT.get(row, MAY_IMPORT[here]))


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_nothing_outside(name: str) -> None:
    """The plan, the schedule and the statistics know no clock, no file and no chance."""
    found = imports(ROOT / "fluxloop" / f"{name}.py")
    assert not {name.partition(".")[0] for name in found} & OUTSIDE


def test_the_command_line_is_thin() -> None:
    """The command line imports the library and click only, and only the library's own public parts."""
    found = {name for path in (ROOT / "fluxloop_cli").glob("*.py") for name in imports(path)}
    outside = {name.partition(".")[0] for name in found} - {"fluxloop", "fluxloop_cli", "click"}
    python = {"collections", "contextlib", "importlib", "os", "pathlib", "re", "signal", "sys", "types", "typing"}
    assert outside <= {"__future__", *python}
    assert {name for name in found if name.startswith("fluxloop.")} == {
        "fluxloop.config",
        "fluxloop.exceptions",
        "fluxloop.exit",
        "fluxloop.generating",
        "fluxloop.listing",
        "fluxloop.lookout",
        "fluxloop.progress",
        "fluxloop.reports.experiments",
        "fluxloop.reports.rows",
        "fluxloop.scaffold.create",
        "fluxloop.scaffold.schemas",
        "fluxloop.verifying",
        "fluxloop.visible",
    }


def test_every_row_is_of_a_module() -> None:
    """The table holds no row for what is gone, and the rows themselves go one way."""
    there = [path.relative_to(ROOT / "fluxloop").with_suffix("").parts for path in MODULES]
    whole = {name for name in MAY_IMPORT if "." not in name}
    assert whole | {"experiment"} == {parts[0] for parts in there}
    assert set(MAY_IMPORT) - whole <= {".".join(parts) for parts in there}
    seen: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert set(allowed) <= seen, name
        seen.add(name)


CLOCKS = {
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "sleep"),
    *("clock_gettime", "clock_gettime_ns", "gmtime", "localtime", "strftime"),
}
CALLS = {"_exit", "fork", "getpid", "getppid"}
STORING = {"open", "write", "close", "fsync", "fdatasync", "ftruncate", "replace", "chmod", "unlink"}
BOUND = {"time": CLOCKS, "datetime": {"now", "utcnow", "today", "fromtimestamp"}, "date": {"today"}, "os": CALLS}
"""What agents' test doubles replace, by where it is found."""
WRITING = ("store/lines", "store/reserve", "store/syncing", "store/documents", "sinks/jsonl")
"""Where results are written while agents run."""
ALONE = ("lookout_process", "executors/remote/guard", "executors/remote/reaper")
"""Run by themselves, without the rest of fluxloop."""


def bound(name: str, attribute: ast.Attribute) -> bool:
    """Whether a module must not call it where it is found."""
    owner = ast.unparse(attribute.value).split(".")[-1]
    calls = BOUND.get(owner, set()) | (STORING if owner == "os" and name in WRITING else set())
    return attribute.attr in calls


def test_clocks_processes_and_files_are_asked_in_one_place() -> None:
    """Only `clock` and `system` call what an agent's test doubles replace, by references of their own."""
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for path, name in zip(MODULES, NAMES, strict=True)
        if name not in ("clock", "system", *ALONE)
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and bound(name, node))
        or (isinstance(node, ast.ImportFrom) and {a.name for a in node.names} & BOUND.get(str(node.module), set()))
    ]
    assert found == []
