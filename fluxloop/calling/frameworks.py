"""What a known framework's agent expects and returns, so that it needs no configuration.

Recognised by the object's own module, without importing the framework. What the user
configures always wins.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen


@frozen(kw_only=True)
class Conventions:
    """How text goes in and the answer comes out, where the configuration does not say."""

    framework: str | None = None
    args: dict[str, Any] | None = None
    input_template: Any = None
    """For a text input only; a mapping is passed as it is."""
    output_path: str | None = None
    state: tuple[str, ...] = ()
    """The keys of the mapping it takes, where text cannot be put into it without being told how."""
    spreads: bool = True
    """False where a mapping is one argument, whatever its keys: the state of a graph."""


def conventions(subject: Any) -> Conventions:
    """Return the conventions of the framework `subject` belongs to, or none."""
    packages = {kind.__module__.partition(".")[0] for kind in type(subject).__mro__}
    if "langgraph" in packages:
        return _langgraph(subject)
    if "pydantic_ai" in packages:
        return Conventions(framework="pydantic-ai", output_path="output")
    if "langchain_core" in packages:
        return Conventions(framework="LangChain", spreads=False)
    return Conventions()


def _langgraph(graph: Any) -> Conventions:
    """A graph whose state holds `messages` is chatted with; one with a checkpointer gets a thread a run."""
    args = None
    if getattr(graph, "checkpointer", None):
        args = {"config": {"configurable": {"thread_id": "{run_id}"}}}
    channels = _channels(graph)
    if "messages" not in channels:
        return Conventions(framework="LangGraph", args=args, state=channels, spreads=False)
    return Conventions(
        framework="LangGraph",
        args=args,
        input_template={"messages": [{"role": "user", "content": "{input}"}]},
        output_path="messages.-1.content",
        spreads=False,
    )


def _channels(graph: Any) -> tuple[str, ...]:
    """The keys of the graph's state; LangGraph's own begin with `__` or name a branch."""
    channels = getattr(graph, "channels", None)
    names = channels if isinstance(channels, dict) else {}
    return tuple(name for name in names if not name.startswith("__") and ":" not in name)
