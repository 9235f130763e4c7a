"""Visits: every actor of a run is asked where it lives, round after round, and the answers are held against the ring.

The process that commands the run begins a round with a message to all workers. Each of them sends the Locust users of
the class :class:`Visits` through its share of the ids, and answers with one message, a few numbers however many ids
there are. Between rounds the users only look now and then whether there is another.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from locust import task
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from actor_load import ids
from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring
from actor_load.placement.rule import rule
from actor_load.record import Placer
from actor_load.users.calls import ActorUser, Place
from actor_load.users.walk import Walk

VISITORS: Final = 32
"""Locust users of a scenario that visit, on all workers together."""

IDLE_SECONDS: Final = 0.2
EXAMPLES: Final = 20
"""Ids that a result names of those that are not where the ring says."""

_BEGIN: Final = "visits-begin"
_DONE: Final = "visits-done"


@dataclass
class Round:
    """What one round found, in all shares."""

    count: int = 0
    """Ids that were to be visited."""
    failed: int = 0
    """Of them, those that never answered."""
    hosts: Counter[str] = field(default_factory=Counter)
    """Pod -> ids that answered from there."""
    mismatched: int = 0
    """Ids that answered from another pod than the ring says."""
    mismatches: list[tuple[str, str, str]] = field(default_factory=list)
    """Some of them: id, pod by the ring, pod that answered."""
    moved: int = 0
    """Ids that answered from another pod than in the round before."""
    moved_by_ring: int = 0
    """Of the ids that answered in both rounds, those that the ring puts on another pod than before."""
    new_activations: int = 0
    """Ids that were activated since the round before; in a first round all of them."""

    def add(self, part: Mapping[str, Any]) -> None:
        """Adds what one worker found."""
        self.hosts.update(part["hosts"])
        self.mismatches = [*self.mismatches, *map(tuple, part["mismatches"])][:EXAMPLES]
        for name in ("count", "failed", "mismatched", "moved", "moved_by_ring", "new_activations"):
            setattr(self, name, getattr(self, name) + part[name])


class Rounds:
    """Begins rounds, and adds up what the workers answer; in the process that commands the run."""

    def __init__(self, environment: Environment) -> None:
        """To be made once, when Locust has its runner."""
        assert environment.runner is not None  # noqa: S101 - Locust's `init` comes after it
        self._environment = environment
        self._runner = environment.runner
        self._number = 0
        self._counts: dict[int, int] = {}
        self._parts: dict[int, dict[str, Mapping[str, Any]]] = {}
        self._runner.register_message(_DONE, self._on_done)
        if not isinstance(self._runner, MasterRunner):
            _answer_rounds(environment)

    def begin(self, count: int, table: Mapping[str, str], at_once: int = VISITORS, placer: Placer = "placement") -> int:
        """Has the ids ``0 .. count - 1`` visited, about ``at_once`` at the same moment; the number of the round.

        A round that is under way is dropped.

        ``table`` is placement's, at rest: address ``ip:port`` -> name of the pod. Where it is empty, nothing is
        compared with the ring. ``placer`` decides which rule that is.
        """
        self._number += 1
        self._counts[self._number] = count
        self._parts[self._number] = {}
        at_once_each = ceil(at_once / max(1, len(ids.members(self._environment))))
        begun = {"number": self._number, "count": count, "table": dict(table), "at_once": at_once_each}
        self._runner.send_message(_BEGIN, begun | {"placer": placer})
        return self._number

    def result(self, number: int) -> Round | None:
        """What a round found; ``None`` until every worker is through with its share.

        The share of a worker that is gone has failed.
        """
        found = Round()
        members = ids.members(self._environment)
        for worker, place in members.items():
            if (part := self._parts[number].get(worker)) is not None:
                found.add(part)
            elif self._is_gone(worker):
                missing = len(range(place, self._counts[number], len(members)))
                found.count += missing
                found.failed += missing
            else:
                return None
        return found

    def _is_gone(self, worker: str) -> bool:
        if not isinstance(self._runner, MasterRunner):
            return False
        client = self._runner.clients.get(worker)
        return client is None or client.state == STATE_MISSING

    def _on_done(self, msg: Message, **_: Any) -> None:
        if (parts := self._parts.get(msg.data["number"])) is not None:
            parts[msg.node_id] = msg.data


def answer_rounds(environment: Environment) -> None:
    """Makes a worker take part in rounds; to be called once, when Locust has its runner."""
    if isinstance(environment.runner, WorkerRunner):
        _answer_rounds(environment)


def _answer_rounds(environment: Environment) -> None:
    def on_begin(msg: Message, **_: Any) -> None:
        ids.share(environment).common(Visitor).begin(environment, **msg.data)

    assert environment.runner is not None  # noqa: S101 - Locust's `init` comes after it
    # Concurrent: a worker that has just come waits for its share, which is the next message.
    environment.runner.register_message(_BEGIN, on_begin, concurrent=True)


class Visitor:
    """The rounds of one process."""

    def __init__(self, share: ids.Share) -> None:
        self._share = share
        self._walk = Walk(())
        self._left = 0
        self._under_way = 0
        self._at_once = 0
        self._number = 0
        self._ring: Ring | Rendezvous | None = None
        self._table: dict[str, str] = {}
        self._found = Round()
        self._known: dict[int, tuple[Place, str]] = {}
        """By number: where it answered from last, and the pod by the ring at that time, if there was one."""

    def begin(
        self, environment: Environment, *, number: int, count: int, table: dict[str, str], at_once: int, placer: Placer
    ) -> None:
        """Starts a round."""
        numbers = self._share.numbers(count)
        self._environment = environment
        self._number = number
        self._at_once = at_once
        self._walk, self._left = Walk(numbers), len(numbers)
        self._ring, self._table = (rule(placer, table) if table else None), table
        self._found = Round(count=len(numbers))
        if not self._left:
            self._answer()

    def visit(self, user: ActorUser) -> bool:
        """Visits one id; ``False`` where there was none to visit, or enough users do."""
        if self._under_way >= self._at_once:
            return False
        walk, number = self._walk, self._walk.step()
        if number is None:
            return False
        actor_id = self._share.id(number)
        self._under_way += 1
        try:
            place = user.visit(actor_id)
        except BaseException:  # Locust ends the user in the middle
            walk.put_back(number)
            raise
        finally:
            self._under_way -= 1
        given_up = place is None and not walk.failed(number)
        if walk is not self._walk:  # another round has begun meanwhile
            return True
        if place is not None:
            self._note(number, actor_id, place)
        if given_up:
            self._found.failed += 1
        if place is not None or given_up:
            self._left -= 1
            if not self._left:
                self._answer()
        return True

    def _note(self, number: int, actor_id: str, place: Place) -> None:
        found, expected = self._found, ""
        host = sys.intern(place.host)
        found.hosts[host] += 1
        if self._ring is not None:
            expected = self._table[self._ring.host_of(actor_id)]
            if expected != host:
                found.mismatched += 1
                if len(found.mismatches) < EXAMPLES:
                    found.mismatches.append((actor_id, expected, host))
        before = self._known.get(number)
        if before is None or before[0].activation != place.activation:
            found.new_activations += 1
        if before is not None:
            found.moved += before[0].host != host
            found.moved_by_ring += bool(before[1] and expected) and before[1] != expected
        self._known[number] = Place(host, place.activation), expected

    def _answer(self) -> None:
        assert self._environment.runner is not None  # noqa: S101 - it runs users
        self._environment.runner.send_message(_DONE, {"number": self._number, **vars(self._found)})


class Visits(ActorUser):
    """Visits what the rounds of a scenario want visited, and idles between them."""

    abstract = False

    def on_start(self) -> None:
        """Joins the others of this process."""
        self._visitor = self.share.common(Visitor)
        self._busy = False

    def wait_time(self) -> float:
        """Seconds: none while there is something to visit."""
        return 0.0 if self._busy else IDLE_SECONDS

    @task
    def visit_next(self) -> None:
        """Visits one actor."""
        self._busy = self._visitor.visit(self)
