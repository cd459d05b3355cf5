"""A call whose output comes piece by piece, recorded as it passes.

A generator function is followed by its steps: not by `yield from`, which keeps what a generator
answers to `close` for itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fluxloop.records import Observation
from fluxloop.tracing.context import Scope, current, leave, recording
from fluxloop.tracing.recorder import Recorder
from fluxloop.tracing.streams import StreamedOutput

_ASSEMBLED = ("current_message_snapshot", "current_completion_snapshot")
"""Where the stream helpers of Anthropic and OpenAI keep the answer they put together."""


class StreamedCall:
    """The observation of one call, from its beginning until its stream ends, however that is.

    Args:
        recorder: what is recorded of the function's calls.
        scope: where the function was called.
        observation: the call's, with its start.
        start: when it began, on the performance counter.
        source: what the function returned; None for a generator function.
    """

    def __init__(
        self, recorder: Recorder, scope: Scope, observation: Observation, start: int, source: Any = None
    ) -> None:
        self.is_open = True
        self._recorder = recorder
        self._scope = scope
        self._observation = observation
        self._start = start
        self._inside: Scope = (scope[0], observation.id)
        self._streamed = StreamedOutput(scope[0].redaction)
        self._is_read = source is None
        self.source = source
        """The stream that is read: what the function returned, or what that gave when it was entered."""
        self._given: tuple[Any] | None = None
        self._kept: Any = None
        """The token of a scope that lasts until the next work."""
        # Weakly, so that a stream that nobody holds any more ends there and then.
        scope[0].streams[observation.id] = weakref.ref(self)

    def __del__(self) -> None:
        if self.is_open:
            self.end()

    def work(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do a part of the call's work, in its scope; an error ends the call."""
        token = self._enter()
        try:
            return function(*args, **kwargs)
        except StopIteration:
            raise
        except BaseException as error:
            self.end(error=error)
            raise
        finally:
            self._leave(token)

    async def work_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do what `work` does, and await it."""
        token = self._enter()
        try:
            return await function(*args, **kwargs)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.end(error=error)
            raise
        finally:
            self._leave(token)

    def step(self, function: Callable[..., Any], *args: Any) -> Any:
        """Take a step of the stream and record the item it gives, or the end."""
        self._is_read = True
        try:
            item = self.work(function, *args)
        except StopIteration as stop:
            self.end(stop.value)
            raise
        if self.is_open:
            self._streamed.add(item)
        return item

    async def step_async(self, function: Callable[..., Any], *args: Any) -> Any:
        """Take a step of an asynchronous stream, as `step` does."""
        self._is_read = True
        try:
            item = await self.work_async(function, *args)
        except StopAsyncIteration:
            self.end()
            raise
        if self.is_open:
            self._streamed.add(item)
        return item

    def _enter(self) -> Any:
        # A stream shares its reader's context: the scope holds only while it works.
        kept, self._kept = self._kept, None
        return kept or (current.set(self._inside) if self.is_open else None)

    def _leave(self, token: Any) -> None:
        if token:
            self._inside = current.get() or self._inside  # where it stopped, which may be in a span of its own
            leave(token)

    def give(self, value: Any) -> None:
        """Take what a context manager gives that is no stream: it is the output, and its block is inside."""
        self._given = (value,)
        self._kept = self._enter()

    def end(
        self,
        returned: Any = None,
        *,
        error: BaseException | None = None,
        at: int | None = None,
        note: str | None = None,
    ) -> None:
        """End the observation, once.

        Args:
            returned: the result of a stream that gave no items.
            error: why it broke off. A reader that has seen enough closes the stream: that is no failure.
            at: when, on the performance counter; now by default.
            note: what is to be said of it in the observation's metadata.
        """
        if not self.is_open:
            return
        self.is_open = False
        run = self._scope[0]
        run.streams.pop(self._observation.id, None)
        if run.closed:
            return
        assembled = self._assembled()
        if self._given is not None:
            (output,) = self._given
        elif self._is_read:
            output = self._streamed.value(returned)
        elif assembled is not None:
            output = assembled
        else:
            output, note = self.source, "never read"
        if note is not None:
            self._observation.metadata = {**(self._observation.metadata or {}), "stream": note}
        # A run may be over before another thread has begun.
        end = None if at is None else max(at, self._start)
        failure = None if isinstance(error, GeneratorExit) else error
        self._recorder.succeed(
            self._scope, self._observation, self._start, output, assembled=assembled, end=end, error=failure
        )

    def _assembled(self) -> Any:
        """The whole answer, where the stream has put it together itself."""
        kind = type(self.source)
        for name in _ASSEMBLED:
            if hasattr(kind, name):
                with suppress(Exception):  # nothing has come yet
                    return getattr(self.source, name)
        return None


class _Generator:
    """What the steps of generators of both kinds share."""

    def __init__(self, function: Any, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scope = recording()
        self._generator = function(*args, **kwargs)
        self._call: StreamedCall | None = None
        if scope is not None:
            self._call = StreamedCall(recorder, scope, *recorder.begin(scope, args, kwargs))
        self.item: Any = None
        """What the generator has yielded."""
        self.sent: Any = None
        self.thrown: BaseException | None = None
        self.returned: Any = None

    def _answers(self) -> tuple[Any, BaseException | None]:
        """Take what came for the generator since its last step."""
        answers = self.sent, self.thrown
        self.sent = self.thrown = None
        return answers


class Steps(_Generator):
    """The steps of a generator."""

    def advance(self) -> bool:
        """Take a step; False at the generator's end."""
        sent, thrown = self._answers()
        # GeneratorExit is thrown too: what the generator makes of it shows here.
        function, arg = (self._generator.send, sent) if thrown is None else (self._generator.throw, thrown)
        try:
            self.item = function(arg) if self._call is None else self._call.step(function, arg)
        except StopIteration as stop:
            self.returned = stop.value
            return False
        return True


class AsyncSteps(_Generator):
    """The steps of an async generator."""

    async def advance(self) -> bool:
        """Take a step; False at the generator's end."""
        sent, thrown = self._answers()
        call = self._call
        try:
            self.item = await (self._step(sent, thrown) if call is None else call.step_async(self._step, sent, thrown))
        except StopAsyncIteration:
            return False
        return True

    async def _step(self, sent: Any, thrown: BaseException | None) -> Any:
        if isinstance(thrown, GeneratorExit):
            # Not `athrow`, which says nothing when the event loop, at its end, has closed the generator already.
            await self._generator.aclose()
            raise thrown
        return await (self._generator.asend(sent) if thrown is None else self._generator.athrow(thrown))
