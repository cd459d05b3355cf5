"""A worker of other processes, by itself."""

from __future__ import annotations

import asyncio
import pickle
import threading
from queue import SimpleQueue
from typing import Any

import attrs
import pytest

from fluxloop.executors.remote import messages
from fluxloop.executors.remote.messages import Order
from fluxloop.executors.remote.worker import Worker
from fluxloop.records import Case, PlannedRun
from fluxloop.runner import Task


async def lingers(text: str) -> str:
    """Take no notice of a cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


def test_attempts_that_linger_together_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Because the first that is told of ends the worker: the others would run again for nothing."""
    monkeypatch.setattr("fluxloop.open_target.LINGER", 0.05)
    monkeypatch.setattr("fluxloop.calling.loop._CLOSING_SECONDS", 0.1)
    monkeypatch.setattr("fluxloop.lane.CLOSING_SECONDS", 0.1)
    said: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
    plain: dict[str, Any] = {"args": {}, "inject": (), "input_template": None, "output_path": None, "import_places": ()}
    task = attrs.evolve(Task(target=lingers, **plain), timeout_seconds=0.05)
    worker = Worker(task, lambda kind, data: said.put((kind, data)), pickle.loads)
    working = threading.Thread(target=worker.work, daemon=True)
    working.start()
    assert said.get() == (messages.READY, b"")
    orders = [Order.of(number, PlannedRun(f"trace_{number}", Case(number, "a", "a"), 0, 1), 1) for number in range(3)]
    worker.receive(messages.ORDERS, messages.encode_orders(orders))
    while said.empty():  # they begin one after the other, and the first is the first to be over its patience
        worker.look()
    kind, data = said.get()
    worker.receive(messages.END, b"")
    working.join()
    assert kind == messages.RESULTS
    results = messages.decode_results(data)
    assert [(result.ticket, result.status, result.left_running) for result in results] == [
        (number, "timeout", True) for number in range(3)
    ]
