"""Agents that show every secret they are given, in every way there is."""

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from urllib.parse import quote

import fluxloop
from fluxloop import TraceSink

GOT = os.environ.get("GOT_FILE", "")


@dataclass
class Account:
    """An object with a secret in a field."""

    user: str
    api_key: str
    note: str


@fluxloop.tool()
def log_in(password, *, account):
    """A tool that is given secrets and returns them."""
    return {"token": "short", "password": password, "headers": {"Authorization": ["Bearer", account.api_key]}}


@fluxloop.generation(model="m", metadata={"api_key": "of-the-decorator"})
def stream(secrets):
    for secret in secrets:
        yield secret[:5]
        yield secret[5:]


def show(message, secrets, metadata):
    everything = [os.environ["SERVICE_API_KEY"], *secrets, message["api_key"], metadata["client_secret"]]
    with open(GOT, "a") as file:
        file.write(json.dumps([everything, fluxloop.current_run().expected]) + "\n")
    told = " ".join(everything)
    print(told)
    print(told, file=sys.stderr)
    sys.stdout.buffer.write(told.encode())
    logging.getLogger("agent").warning("with %s", everything)
    fluxloop.event(f"event {told}", told=told, keys=dict.fromkeys(everything, 1))
    with fluxloop.span(f"span {told}", input=everything, metadata={"as_json": json.dumps(everything)}) as step:
        step.update(
            output={"bytes": told.encode(), "not_text": b"\xff" + told.encode()}, metadata={"set": set(everything)}
        )
    log_in(everything[0], account=Account("me", "only-in-a-field", told))
    list(stream(everything))
    if message["text"] == "fail":
        try:
            raise KeyError(told)
        except KeyError as error:
            raise ValueError(f"no {told} {quote(told, safe='')} {everything!r}") from error
    return {"answer": told, "account": Account("me", "only-in-a-field", told), "object": repr(everything)}


def run(text, api_key, connection, secret_number, metadata, runs_token):
    fluxloop.event("a number", value=secret_number, counts={secret_number: 1})
    return show({"text": text, "api_key": api_key}, [connection["password"], str(secret_number), runs_token], metadata)


async def run_async(text, api_key, connection, secret_number, metadata, runs_token):
    await asyncio.sleep(0)
    return run(text, api_key, connection, secret_number, metadata, runs_token)


class Sink(TraceSink):
    """A sink that fails with its own connection string, and keeps what it gets."""

    def __init__(self, token, place):
        self.token, self.place = token, place

    def open(self, context):
        with open(self.place, "w") as file:
            file.write(repr(context.config))

    def write(self, trace):
        with open(self.place, "a") as file:
            file.write(repr(trace.__dict__))
        raise OSError(f"cannot reach https://me:{self.token}@host, {os.environ['SERVICE_API_KEY']}")

    def close(self, summary):
        raise OSError(f"closing {self.token}")


class RefusingSink(TraceSink):
    def open(self, context):
        raise OSError(f"cannot reach {os.environ['SERVICE_API_KEY']}")
