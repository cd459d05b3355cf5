"""A generator under way, recorded as it passes.

Not `yield from`, which keeps what a generator answers to `close` for itself.
"""

from __future__ import annotations

from typing import Any

from fluxloop.records import Observation
from fluxloop.tracing.context import Scope, current, leave
from fluxloop.tracing.recorder import Recorder
from fluxloop.tracing.redaction import NOTHING
from fluxloop.tracing.streams import StreamedOutput


class _Recorded:
    """What steps of both kinds share: the scope they work in, and the record of what passes."""

    def __init__(self, function: Any, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recorder = recorder
        self._scope = current.get()
        self._generator = function(*args, **kwargs)
        self._observation: Observation | None = None
        self._start = 0
        self._inside: Scope | None = None
        if self._scope is not None:
            self._observation, self._start = recorder.begin(self._scope, args, kwargs)
            self._inside = (self._scope[0], self._observation.id)
        self._streamed = StreamedOutput(self._scope[0].redaction if self._scope else NOTHING)
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

    def _enter(self) -> Any:
        # A generator shares its caller's context: the scope holds only while it works.
        return current.set(self._inside) if self._inside else None

    def _leave(self, token: Any) -> None:
        if token:
            self._inside = current.get() or self._inside  # where it stopped, which may be in a span of its own
            leave(token)

    def _passed(self, item: Any) -> bool:
        self.item = item
        if self._inside:
            self._streamed.add(item)
        return True

    def _ended(self, returned: Any = None) -> bool:
        self.returned = returned
        if self._observation and self._scope:
            self._recorder.succeed(self._scope, self._observation, self._start, self._streamed.value(returned))
        return False

    def _broke_off(self, error: BaseException) -> None:
        if self._observation and self._scope:
            self._recorder.succeed(self._scope, self._observation, self._start, self._streamed.value())
            # A reader that has seen enough closes the stream: that is an end, not a failure.
            if not isinstance(error, GeneratorExit):
                self._recorder.fail(self._scope, self._observation, self._start, error)


class Steps(_Recorded):
    """The steps of a generator."""

    def advance(self) -> bool:
        """Take a step; False at the generator's end."""
        sent, thrown = self._answers()
        token = self._enter()
        try:
            # GeneratorExit is thrown too: what the generator makes of it shows here.
            item = self._generator.send(sent) if thrown is None else self._generator.throw(thrown)
        except StopIteration as stop:
            return self._ended(stop.value)
        except BaseException as error:
            self._broke_off(error)
            raise
        finally:
            self._leave(token)
        return self._passed(item)


class AsyncSteps(_Recorded):
    """The steps of an async generator."""

    async def advance(self) -> bool:
        """Take a step; False at the generator's end."""
        sent, thrown = self._answers()
        token = self._enter()
        try:
            item = await self._step(sent, thrown)
        except StopAsyncIteration:
            return self._ended()
        except BaseException as error:
            self._broke_off(error)
            raise
        finally:
            self._leave(token)
        return self._passed(item)

    async def _step(self, sent: Any, thrown: BaseException | None) -> Any:
        if isinstance(thrown, GeneratorExit):
            # Not `athrow`, which says nothing when the event loop, at its end, has closed the generator already.
            await self._generator.aclose()
            raise thrown
        return await (self._generator.asend(sent) if thrown is None else self._generator.athrow(thrown))
