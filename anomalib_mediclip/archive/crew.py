# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Actors of Ray that share the shards, and what happens to the shards of those that die.

Only numbers of shards and counts travel. An actor has at most two shards, so that it never waits for the next one, and
little is lost with it. An actor that dies is replaced. A shard at which actors die three times is given up; the death
of a whole node does not count against a shard.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from anomalib_mediclip.archive.shard import Report

IN_FLIGHT = 2  # shards of an actor
MAX_DEATHS = 3
SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True)
class GivenUp:
    """A shard that is left out.

    Attributes:
        shard (int): Number.
        reason (str): Why.
    """

    shard: int
    reason: str


@dataclass(eq=False)
class _Member:
    """An actor, the node on which it is (unknown until it is ready) and its shards, the oldest first."""

    actor: Any
    opening: Any
    node: str | None = None
    shards: dict[Any, int] = field(default_factory=dict)


class Crew:
    """Actors that share shards.

    Args:
        ray (Any): The module, connected.
        start (Callable[[], Any]): Starts an actor with the methods of a
            :class:`~anomalib_mediclip.archive.worker.Worker`.
        size (Callable[[], int]): Number of actors that have room at the moment.
        shards (Sequence[int]): Shards to predict.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], size: Callable[[], int], shards: Sequence[int]) -> None:
        self._ray = ray
        self._start = start
        self._size = size
        self._waiting = deque(shards)
        self._members: list[_Member] = []
        self._deaths: Counter[int] = Counter()
        self._deaths_while_opening = 0

    @property
    def running(self) -> int:
        """Number of shards that actors are predicting."""
        return sum(bool(member.shards) for member in self._members)

    def run(self) -> Iterator[Report | GivenUp | None]:
        """Predict all shards.

        Yields:
            Report | GivenUp | None: What came of a shard, in any order; None every two seconds without news.

        Raises:
            RuntimeError: If actors cannot open the model.
            OSError: If predictions cannot be written.
        """
        while self._waiting or any(member.shards for member in self._members):
            self._hire()
            self._hand_out()
            awaited = [
                one for member in self._members for one in ([member.opening] if member.node is None else member.shards)
            ]
            ended = self._ray.wait(awaited, num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)[0] if awaited else []
            for reference in ended:
                yield from self._settle(reference)
            if not ended:
                yield None
            if not awaited:  # all nodes are gone, and may come back
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def _hire(self) -> None:
        """Start as many actors as there is room and work for."""
        wanted = min(self._size(), len(self._waiting) + len(self._members))
        while len(self._members) < wanted:
            actor = self._start()
            self._members.append(_Member(actor, actor.open.remote()))

    def _hand_out(self) -> None:
        """Give shards to actors that are ready, first to those that have none."""
        for number in range(IN_FLIGHT):
            for member in self._members:
                if member.node is not None and len(member.shards) == number and self._waiting:
                    shard = self._waiting.popleft()
                    member.shards[member.actor.predict.remote(shard)] = shard

    def _settle(self, reference: Any) -> Iterator[Report | GivenUp]:
        """Take what an actor has sent, or find out why it sent nothing."""
        errors = self._ray.exceptions
        member = next(one for one in self._members if reference in (one.opening, *one.shards))
        try:
            answer = self._ray.get(reference)
        except errors.RayTaskError as error:  # raised by our own code, in an actor that lives
            yield from self._note_error(member, reference, error.cause or error)
        except errors.RayActorError as error:
            yield from self._note_death(member, error)
        else:
            if reference == member.opening:
                member.node = answer
            else:
                del member.shards[reference]
                yield answer

    def _note_error(self, member: _Member, reference: Any, error: Exception) -> Iterator[GivenUp]:
        """End the work if the model cannot be opened or nothing written; otherwise try the shard again."""
        if reference == member.opening or isinstance(error, OSError):
            raise error
        yield from self._count(member.shards.pop(reference), f"{type(error).__name__}: {error}")

    def _note_death(self, member: _Member, error: Exception) -> Iterator[Report | GivenUp]:
        """Take the shards of an actor that is dead; the oldest unfinished one was the one that it worked at."""
        self._members.remove(member)
        self._ray.kill(member.actor)
        shards = []
        for reference, shard in member.shards.items():
            try:  # it may have finished some whose reports nobody has looked at
                yield self._ray.get(reference, timeout=SECONDS_BETWEEN_LOOKS)
            except self._ray.exceptions.RayError:
                shards.append(shard)
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if member.node is None:
            self._deaths_while_opening += 1
            if self._deaths_while_opening >= MAX_DEATHS:
                msg = f"workers died {MAX_DEATHS} times while they loaded the model: {' '.join(str(error).split())}"
                raise RuntimeError(msg) from error
        elif member.node in alive and shards:
            yield from self._count(
                shards.pop(0), "the process died, perhaps because memory ran out or a decoder crashed"
            )
        self._waiting.extendleft(reversed(shards))

    def _count(self, shard: int, reason: str) -> Iterator[GivenUp]:
        """Count an attempt at a shard that failed; it is tried again last, and given up the third time."""
        self._deaths[shard] += 1
        if self._deaths[shard] < MAX_DEATHS:
            self._waiting.append(shard)
        else:
            yield GivenUp(shard, reason)
