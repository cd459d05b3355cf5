"""Real LangGraph graphs and a LangChain runnable, without a model."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

import fluxloop


@fluxloop.tool()
def count(messages: list[Any]) -> int:
    return len(messages)


async def reply(state: MessagesState) -> dict[str, Any]:
    question = state["messages"][-1].content
    return {"messages": [AIMessage(f"{count(state['messages'])}: {question}")]}


def _chat() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", END)
    return builder


graph = _chat().compile(checkpointer=InMemorySaver())
forgetful = _chat().compile()


@asynccontextmanager
async def managed() -> Any:
    """As with a checkpointer that is a connection to a database."""
    yield _chat().compile(checkpointer=InMemorySaver())


class State(TypedDict):
    input: str
    style: str
    answer: dict[str, str]


def answer(state: State) -> dict[str, Any]:
    return {"answer": {"text": f"{state['style']} {state['input']}"}}


def _custom() -> Any:
    builder = StateGraph(State)
    builder.add_node("work", answer)
    builder.add_edge(START, "work")
    builder.add_edge("work", END)
    return builder.compile()


custom = _custom()
runnable = RunnableLambda(lambda given: given["input"].upper() if isinstance(given, dict) else given.upper())
