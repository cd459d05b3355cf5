"""A shop's help desk: a model on the openai package that calls two tools until it can answer.

It is an ordinary agent with three decorators: `@fluxloop.agent()` on the way in, `@fluxloop.generation()`
on the call of the model, whose token usage is read from the response, and `@fluxloop.tool()` on what the
model may use. Outside an experiment they cost nothing: `python agent.py "Where is my order A-1001?"`
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from openai import AsyncOpenAI

import fluxloop

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
MAX_TURNS = 6
SYSTEM = (
    "You are the help desk of a small shop. Use the tools for orders and shipping; never guess at either."
    " Answer in a sentence or two."
)
ORDERS = {
    "A-1001": {"item": "desk lamp", "status": "sent", "arrives": "in two days"},
    "A-1002": {"item": "office chair", "status": "waiting for the maker", "arrives": "in three weeks"},
    "A-1003": {"item": "bookshelf", "status": "delivered", "arrives": "last Monday"},
}
RATES = {"de": (4.0, 0.5), "fr": (6.0, 0.8), "us": (18.0, 3.5)}  # euros for a parcel, and for each kilogram


class NoAnswerError(RuntimeError):
    """The model went on calling tools."""


@fluxloop.tool()
def find_order(order_id: str) -> dict[str, str]:
    """Return what is known of an order."""
    return ORDERS.get(order_id.strip().upper(), {"error": f"there is no order {order_id}"})


@fluxloop.tool()
def shipping_cost(country: str, kilograms: float) -> dict[str, Any]:
    """Return the price of a parcel in euros."""
    if country.lower() not in RATES:
        return {"error": f"no shipping to {country}; only to {', '.join(RATES)}"}
    parcel, each = RATES[country.lower()]
    return {"euros": round(parcel + each * kilograms, 2)}


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Look up an order by its number, such as A-1001.",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}},
                "required": ["order_id"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "shipping_cost",
            "description": "Price of sending a parcel. The country is a code of two letters.",
            "parameters": {
                "type": "object",
                "properties": {"country": {"type": "string"}, "kilograms": {"type": "number"}},
                "required": ["country", "kilograms"],
            },
        },
    },
]


class HelpDesk:
    """The agent. fluxloop enters it once, so that all runs share one client, and leaves it at the end."""

    async def __aenter__(self) -> HelpDesk:
        # No retries of the client's own: fluxloop retries the run (`max_retries` in the configuration), waits
        # as long as the service asks, holds the other runs back meanwhile, and keeps each attempt's record.
        self.client = AsyncOpenAI(max_retries=0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()

    @fluxloop.agent()
    async def answer(self, question: str) -> str:
        """Answer a customer."""
        messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        for _ in range(MAX_TURNS):
            message = (await self.ask(messages)).choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                result = use(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
        raise NoAnswerError(f"no answer after {MAX_TURNS} turns")

    @fluxloop.generation()
    async def ask(self, messages: list[Any]) -> Any:
        """Ask the model what to do next."""
        return await self.client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)


def use(name: str, arguments: str) -> Any:
    """Call a tool as the model asks; what it got wrong it is told, and may try again."""
    tools: dict[str, Any] = {"find_order": find_order, "shipping_cost": shipping_cost}
    try:
        return tools[name](**json.loads(arguments))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {"error": f"{name}({arguments}): {type(error).__name__}: {error}"}


async def main(question: str) -> None:
    async with HelpDesk() as desk:
        print(await desk.answer(question))


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:])))
