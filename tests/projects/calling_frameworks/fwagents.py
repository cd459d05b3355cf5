"""Real pydantic-ai agents on test models."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

import fluxloop

agent = Agent(TestModel(custom_output_text="It is on its way."))


def _model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("look_up", {"order": "7"})])
    return ModelResponse(parts=[TextPart(f"After {len(messages)} messages: done")])


tooled = Agent(FunctionModel(_model))


@tooled.tool_plain
@fluxloop.tool()
def look_up(order: str) -> str:
    return f"order {order} is on its way"


@fluxloop.agent()
async def traced(question: str) -> str:
    return (await ask(question)).output


class Answer:
    """What pydantic-ai says of a run, as a response of a model."""

    def __init__(self, result: Any) -> None:
        self.output = result.output
        self.usage = result.usage


@fluxloop.generation(model="test")
async def ask(question: str) -> Answer:
    return Answer(await agent.run(question))
