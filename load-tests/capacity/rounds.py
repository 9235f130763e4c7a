"""How long placement's rounds take, by the number of hosts.

Runs Dapr's placement service alone. The hosts are streams of this process: each offers the actor type, as a sidecar
does, and answers each order at once, as a sidecar without actors does. A round begins when a host comes or goes, and
ends when all have been told that the new table holds.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import grpc.aio
from bench import cpu
from bench.actor_calls import ACTOR_TYPE
from bench.children import Child
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cluster import binaries
from cluster.errors import CommandError
from cluster.local import ports
from cluster.local.layout import LOOPBACK
from cluster.steps import say

HOSTS: Final = [1, 2, 5, 10, 20, 50, 100, 200, 400, 800]
REPEATS: Final = 10
"""Of a host that comes and goes again, at each number of hosts: two rounds."""
FIRST_PORT: Final = 21_900
ROUND_SECONDS: Final = 60.0
"""Placement itself gives up after 8 s."""
AGAIN_SECONDS: Final = 0.2
CHANNELS: Final = 8
NAMESPACE: Final = "default"
PORT: Final = 50002
METHOD: Final = "/dapr.proto.placement.v1.Placement/ReportDaprStatus"
API_LEVEL: Final = 20

_TEXT: Final = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_NUMBER: Final = descriptor_pb2.FieldDescriptorProto.TYPE_UINT64


@dataclass(frozen=True)
class Look:
    """Rounds of so many hosts."""

    hosts: int
    """Before the round that is measured; one more came, or one of one more went."""
    seconds: list[float]
    """Of each round, from the host that comes or goes to the last host that was told that the new table holds."""
    placement_ms: float
    """Milliseconds of CPU a round, of placement."""
    hosts_ms: float
    """The same of all hosts together, which is this program's own and no sidecar's."""


def measure(counts: Sequence[int], repeats: int = REPEATS) -> list[Look]:
    """Looks at each of ``counts`` hosts, which rise.

    Raises:
        CommandError: placement does not answer.
    """
    return asyncio.run(_measure(counts, repeats))


async def _measure(counts: Sequence[int], repeats: int) -> list[Look]:
    with tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch, _placement(Path(scratch)) as child:
        async with _hosts() as hosts:
            looks = []
            for count in counts:
                await hosts.become(count)
                looks.append(await _look(hosts, child, count, repeats))
                say(f"{count} hosts: a round takes {1000 * median(looks[-1].seconds):.1f} ms")
            return looks


async def _look(hosts: "Hosts", child: Child, count: int, repeats: int) -> Look:
    before, own = cpu.look(), time.process_time()
    seconds = []
    for _ in range(repeats):
        for members in (count + 1, count):
            began = time.monotonic()
            await hosts.become(members)
            seconds.append(time.monotonic() - began)
    rounds = len(seconds)
    spent = sum(cpu.spent(before, cpu.look(), cpu.below(child.pid)).values())
    return Look(count, seconds, 1000 * spent / rounds, 1000 * (time.process_time() - own) / rounds)


class Hosts:
    """Hosts of actors, as placement sees them."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._calls = [
            channel.stream_stream(METHOD, _HOST.SerializeToString, _ORDER.FromString) for channel in channels
        ]
        self._names = itertools.count()
        self._holds: dict[asyncio.Task[None], int] = {}
        """Task of a host -> version of the table that holds for it."""
        self._told = asyncio.Event()

    async def become(self, count: int) -> None:
        """Hosts come or go until there are so many; returns when the same new table holds for all.

        Raises:
            CommandError: it does not.
        """
        last = max(self._holds.values(), default=0)
        while len(self._holds) < count:
            task = asyncio.create_task(self._host(next(self._names)))
            self._holds[task] = 0
        gone = list(self._holds)[count:]
        for task in gone:
            del self._holds[task]
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                while min(self._holds.values()) <= last or len(set(self._holds.values())) > 1:
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError as error:
            raise CommandError(f"placement has no table of {count} hosts after {ROUND_SECONDS:.0f} s") from error

    async def close(self) -> None:
        """All go."""
        for task in self._holds:
            task.cancel()
        await asyncio.gather(*self._holds, return_exceptions=True)

    async def _host(self, number: int) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        about = {"id": "chat-service", "namespace": NAMESPACE, "name": f"198.18.{number // 250}.{number % 250}:{PORT}"}
        while True:
            call = self._calls[number % len(self._calls)]()
            try:
                report = {"operation": _OPERATIONS["report"], "entities": [ACTOR_TYPE], "api_level": API_LEVEL}
                await call.write(_HOST(port=PORT, **about, **report))
                async for order in call:
                    await call.write(_HOST(**about, operation=_OPERATIONS[order.operation], version=order.version))
                    if order.operation == "unlock" and task in self._holds:
                        self._holds[task] = order.version
                        self._told.set()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # It has no leader yet, or was not quick enough: a sidecar, too, tries again.
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                call.cancel()


@asynccontextmanager
async def _hosts() -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        # Each sidecar has a connection of its own; one connection has room for a hundred streams.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{FIRST_PORT}", options))
            for _ in range(CHANNELS)
        ]
        hosts = Hosts(channels)
        stack.push_async_callback(hosts.close)
        yield hosts


@contextmanager
def _placement(folder: Path) -> Iterator[Child]:
    ports_ = {FIRST_PORT + number: "placement" for number in range(3)}
    if taken := ports.taken(ports_):
        raise CommandError(f"{ports.told(taken, ports_)}; end that first")
    port, health, raft = ports_
    command = (
        str(binaries.placement()),
        *(f"--listen-address={LOOPBACK}", f"--port={port}", f"--healthz-port={health}", "--enable-metrics=false"),
        f"--initial-cluster=dapr-placement-0={LOOPBACK}:{raft}",
    )
    with Child("placement", command, folder / "placement.log", {"NAMESPACE": NAMESPACE}) as child:
        yield child


def _messages() -> tuple[Any, Any]:
    """The messages of Dapr's placement.proto that are needed here; of an order the table stays unread."""
    repeated = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(
        name="placement.proto", package="dapr.proto.placement.v1", syntax="proto3"
    )
    host, order = file.message_type.add(name="Host"), file.message_type.add(name="PlacementOrder")
    for message, name, number, kind in (
        (host, "name", 1, _TEXT),
        (host, "port", 2, _NUMBER),
        (host, "entities", 4, _TEXT),
        (host, "id", 5, _TEXT),
        (host, "api_level", 7, _NUMBER),
        (host, "namespace", 8, _TEXT),
        (host, "operation", 9, _NUMBER),
        (host, "version", 10, _NUMBER),
        (order, "operation", 2, _TEXT),
        (order, "version", 3, _NUMBER),
    ):
        field = message.field.add(name=name, number=number, type=kind)
        if name == "entities":
            field.label = repeated
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{file.package}.{name}") for name in ("Host", "PlacementOrder"))
    made = [message_factory.GetMessageClass(descriptor) for descriptor in found]
    return made[0], made[1]


_HOST, _ORDER = _messages()
_OPERATIONS: Final = {"report": 1, "lock": 2, "update": 3, "unlock": 4}
