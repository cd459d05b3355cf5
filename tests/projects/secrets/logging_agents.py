"""Agents that log by whatever took the screen's streams when they were imported."""

import asyncio
import logging
import os
import queue
import sys
from logging.handlers import QueueHandler, QueueListener
from sys import stdout

import rich.console
import structlog
from loguru import logger as loguru_logger

KEY = os.environ["SHOP_API_KEY"]

console = rich.console.Console(file=sys.stderr, width=200)
structured = structlog.wrap_logger(
    structlog.PrintLogger(sys.stderr), processors=[structlog.processors.KeyValueRenderer()]
)

logging.basicConfig(level=logging.INFO, format="basic %(message)s")

handled = logging.getLogger("handled")
handled.propagate = False
handled.addHandler(logging.StreamHandler(sys.stdout))

waiting = queue.SimpleQueue()
queued = logging.getLogger("queued")
queued.propagate = False
queued.addHandler(QueueHandler(waiting))
listener = QueueListener(waiting, logging.StreamHandler(sys.stderr))

print(f"imported with {KEY}")


def run(text):
    loguru_logger.info(f"loguru {text} {KEY}")
    console.print(f"rich {text} {KEY}", markup=False, highlight=False)
    structured.info(f"structlog {text} {KEY}")
    logging.info(f"{text} {KEY}")
    handled.info(f"handled {text} {KEY}")
    print(f"stdout {text} {KEY}", file=stdout)
    listener.start()
    queued.warning(f"queued {text} {KEY}")
    listener.stop()
    return text


async def run_async(text):
    await asyncio.sleep(0)
    return run(text)
