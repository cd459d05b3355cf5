"""Workers on a cluster of Ray, behind relays that keep them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

from fluxloop import __version__
from fluxloop.clock import monotonic, sleep
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.cluster import Cluster
from fluxloop.executors.remote.local import CLOSING_SECONDS, TOOK_TOO_LONG
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relay import BEAT_SECONDS, Relay, Said, chunk, unpack
from fluxloop.executors.remote.transport import Message
from fluxloop.notices import notice
from fluxloop.schedule import HEARTBEAT

KILLING_SECONDS = 2.0
"""How long it waits until those that are killed have been."""
ROOM_SECONDS = 30.0
"""After so long without a place for any worker it is told why."""
MAX_CHUNKS = 1_000
"""After so many words a relay is asked anew to speak, so that nothing grows with their number."""


class RayWorkers:
    """Workers behind relays in actors of Ray.

    Args:
        cluster: where the actors are.
        root: the project here, if it was shipped.
        preparation: what each worker is told before anything else.
        num_cpus: what a worker takes up.
        places: how many workers an actor keeps.
    """

    starts: int | None = None
    """The cluster decides."""

    def __init__(
        self, cluster: Cluster, root: str | None, preparation: Preparation, *, num_cpus: float, places: int
    ) -> None:
        self._ray: Any = cluster.ray
        self._cluster = cluster
        self._num_cpus = num_cpus
        self._places = places
        self._since = monotonic()
        """When it began that no worker has a place."""
        self._is_told = False
        groups = {"hear": 1, "tell": 1}
        self._actor = self._ray.remote(num_cpus=num_cpus * places, max_restarts=0, concurrency_groups=groups)(Relay)
        self._arguments: tuple[Any, ...] = (__version__, root, self._ray.put(preparation))
        self._relays: dict[Any, _Relayed] = {}
        """By what each of them says, as Ray streams it."""

    def start(self) -> RayLink:
        with_room = (one for one in self._relays.values() if len(one.links) < self._places)
        # One that waits for a place may never get it.
        relay = max(with_room, key=lambda one: one.is_placed, default=None)
        if relay is None:
            relay = _Relayed(self._actor.remote(*self._arguments))
            self._relays[relay.hear()] = relay
        return relay.start()

    def receive(self, seconds: float) -> list[Message]:
        if not self._relays:
            sleep(seconds)
            return []
        self._look_for_room()
        ray, said = self._ray, list(self._relays)
        if not ray.wait(said, num_returns=1, timeout=seconds)[0]:
            return []
        found: list[Message] = []
        for stream in ray.wait(said, num_returns=len(said), timeout=0)[0]:
            found += self._heard(stream)
        return found

    def _look_for_room(self) -> None:
        if self._is_told or monotonic() - self._since < ROOM_SECONDS:
            return
        if any(relay.is_placed for relay in self._relays.values()):
            self._since = monotonic()
            return
        self._is_told = True
        workers = "one takes" if self._places == 1 else f"{self._places} together take"
        asked = f"{workers} {self._num_cpus * self._places:g} of a machine's processors"
        told = f"no worker has found a place for {ROOM_SECONDS:g} s: {asked} (runner.ray.num_cpus)"
        notice(f"{told}, and {self._cluster.room()}")

    def _heard(self, stream: Any) -> list[Message]:
        relay = self._relays[stream]
        try:
            said = unpack(self._ray.get(next(stream)))
            relay.is_placed = True
        except StopIteration:  # it has said much, and is asked to go on
            del self._relays[stream]
            self._relays[relay.hear()] = relay
            return []
        except self._ray.exceptions.RayError as error:
            del self._relays[stream]
            relay.end(self._ray)
            return relay.lost(self._told(error, relay.is_placed))
        return relay.heard(said)

    def _told(self, error: Exception, was_placed: bool) -> str:
        if was_placed and isinstance(error, self._ray.exceptions.RayActorError):
            # Ray's own words are long, and name the actor: no two would be the same.
            return f"the machine its worker was on, or Ray's actor there, was lost ({type(error).__name__})"
        return f"no worker can be started on the cluster: {' '.join(str(error).split())}"

    def close(self, leaving: Sequence[object]) -> list[Message]:
        found: list[Message] = []
        try:
            for link in self._links():
                if link in leaving:
                    link.send(messages.END, b"")
                else:
                    link.kill()
            latest = monotonic() + CLOSING_SECONDS
            while self._links() and monotonic() < latest:
                found += self.receive(HEARTBEAT)
        finally:  # also when the end is abandoned
            found += self._ended()
        return found

    def _links(self) -> list[RayLink]:
        return [link for relay in self._relays.values() for link in relay.links.values()]

    def _ended(self) -> list[Message]:
        """Kill the workers that are left, and the actors, and return what is to be said."""
        left = self._links()
        try:
            for link in left:
                link.kill()
            # An actor that is killed takes its workers along, but not what those have started.
            if killing := [relay.settled() for relay in self._relays.values() if relay.is_placed]:
                self._ray.wait(killing, num_returns=len(killing), timeout=KILLING_SECONDS)
        finally:
            for relay in self._relays.values():
                relay.end(self._ray)
            self._relays.clear()
            # Ray counts what is let go of later as of its next cluster, where numbers begin anew.
            self._actor, self._arguments = None, ()
            gc.collect()
        return [(link, messages.REMARK, TOOK_TOO_LONG) for link in left]


class _Relayed:
    """A relay as it is reached from here, and the workers it has."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.links: dict[int, RayLink] = {}
        """By number."""
        self.is_placed = False
        """True once it has been heard of."""
        self.heard_at = monotonic()
        """When it last was."""
        self._workers = 0
        self._hear: Any = actor.hear.options(num_returns="streaming", concurrency_group="hear")
        self._tell: Any = actor.tell.options(concurrency_group="tell")

    def hear(self) -> Any:
        """Ask it to say what its workers say."""
        return self._hear.remote(MAX_CHUNKS)

    def tell(self, worker: int, kind: bytes, data: bytes) -> None:
        """Say something to a worker; to one that has gone, nothing."""
        if self._tell is not None:
            self._tell.remote(chunk([(worker, kind, data)]))

    def settled(self) -> Any:
        """Ask for a word once it has done what it was told."""
        return self._actor.settle.options(concurrency_group="tell").remote()

    def end(self, ray: Any) -> None:
        """End the actor, and let go of it."""
        ray.kill(self._actor)
        self._actor = self._hear = self._tell = None

    def start(self) -> RayLink:
        """Start a worker."""
        self._workers += 1
        link = self.links[self._workers] = RayLink(self, self._workers)
        link.send(messages.START, b"")
        return link

    def heard(self, said: Iterable[Said]) -> list[Message]:
        """Return what its workers say, but for those that have been ended."""
        self.heard_at = monotonic()
        found: list[Message] = []
        for worker, kind, data in said:
            if (link := self.links.get(worker)) is None:
                continue
            found.append((link, kind, data))
            if kind in (messages.GONE, messages.FAILED):
                del self.links[worker]
            else:
                link.heard = monotonic()
        return found

    def lost(self, told: str) -> list[Message]:
        """Return what is to be said of its end."""
        return [(link, messages.LOST, told.encode()) for link in self.links.values()]


class RayLink:
    """A worker that a relay keeps."""

    def __init__(self, relay: _Relayed, worker: int) -> None:
        self.heard = monotonic()
        self._relay = relay
        self._worker = worker

    @property
    def is_cut(self) -> bool:
        """True when the relay itself has not been heard of: its machine may be gone, which Ray tells later."""
        return monotonic() - self._relay.heard_at > 3 * BEAT_SECONDS

    def send(self, kind: bytes, data: bytes) -> None:
        self._relay.tell(self._worker, kind, data)

    def kill(self) -> None:
        if self._relay.links.pop(self._worker, None) is not None:
            self.send(messages.KILL, b"")
