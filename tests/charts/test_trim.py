"""charts/daca/files/redis/trim.sh and trim.lua, on a real Redis: what was read goes, what was not never does."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.charts import CHART

from cluster.local import redis as local_redis
from cluster.local import trim

FILES = CHART / "files" / "redis"
PASSWORD = '\ufeff a "word" \\ of $it, é\r\n'
"""With all that a file may bring along: server, probe and Dapr take a password byte for byte."""
TOPIC = "conversations"
SECONDS = 10.0


class Redis(NamedTuple):
    """A server of the tests' own, and a PATH whose redis-cli reaches it."""

    port: int
    environment: dict[str, str]

    def __call__(self, *command: str | Path) -> str:
        """What redis-cli answers; it exits with 0 also where that is an error."""
        done = subprocess.run(["redis-cli", *command], env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def add(self, *ids: str, stream: str = TOPIC) -> None:
        """Adds entries to a stream."""
        for entry in ids:
            assert self("XADD", stream, entry, "data", "x" * 100) == entry

    def group(self, name: str = "memory", stream: str = TOPIC) -> None:
        """Makes a group that is to read all of a stream, as Dapr does."""
        assert self("XGROUP", "CREATE", stream, name, "0", "MKSTREAM") == "OK"

    def deliver(self, count: int, name: str = "memory", stream: str = TOPIC) -> None:
        """Gives the next entries to a group."""
        self("XREADGROUP", "GROUP", name, name, "COUNT", str(count), "STREAMS", stream, ">")

    def acknowledge(self, *ids: str, name: str = "memory", stream: str = TOPIC) -> None:
        """Says for a group that entries are done with."""
        assert self("XACK", stream, name, *ids) == str(len(ids))

    def trim(self, *streams: str) -> int:
        """Runs trim.lua once; how many entries went."""
        return int(self("--eval", FILES / "trim.lua", *(streams or (TOPIC,))))

    def left(self, stream: str = TOPIC) -> list[str]:
        """Ids of the entries of a stream."""
        lines = self("XRANGE", stream, "-", "+").splitlines()
        return [line for line in lines if line.replace("-", "").isdigit()]


def wait_until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    found = local_redis.server()
    folder = tmp_path_factory.mktemp("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # redis-cli takes the password from its environment, but the port only as an argument.
    tools = folder / "bin"
    tools.mkdir()
    (tools / "redis-cli").write_text(f'#!/bin/sh\nexec "{Path(found.command[0]).parent}/redis-cli" -p {port} "$@"\n')
    (tools / "redis-cli").chmod(0o755)
    environment = {**os.environ, **found.env, "PATH": f"{tools}:{os.environ['PATH']}", "REDISCLI_AUTH": PASSWORD}
    (folder / "redis.conf").write_text(f"bind 127.0.0.1\nport {port}\nsave ''\ndir {folder}\n")
    # start.sh itself, but for the two paths of the image.
    start = (FILES / "start.sh").read_text().replace("/etc/redis", str(folder))
    start = start.replace("exec redis-server", f"exec {found.command[0]}")
    process = subprocess.Popen(["/bin/sh", "-c", start], env=environment, stdout=subprocess.DEVNULL)
    redis = Redis(port, environment)
    ping = ["redis-cli", "ping"]
    try:
        wait_until(lambda: subprocess.run(ping, env=environment, capture_output=True, check=False).stdout == b"PONG\n")
        yield redis
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def redis(server: Redis) -> Redis:
    server("FLUSHALL")
    return server


class TestOnce:
    def test_what_was_acknowledged_goes(self, redis):
        redis.group()
        redis.add("1-0", "2-0", "3-0")
        redis.deliver(3)
        redis.acknowledge("1-0", "2-0", "3-0")
        assert redis.trim() == 3
        assert redis.left() == []
        redis.add("3-1")
        redis.deliver(1)
        assert redis("XPENDING", TOPIC, "memory").startswith("1\n3-1")

    def test_what_was_not_delivered_stays(self, redis):
        redis.group()
        redis.add("1-0", "2-0", "3-0")
        assert redis.trim() == 0
        redis.deliver(1)
        redis.acknowledge("1-0")
        assert redis.trim() == 1
        assert redis.left() == ["2-0", "3-0"]

    def test_what_is_pending_stays_and_all_that_came_after_it(self, redis):
        redis.group()
        redis.add("1-0", "2-0", "3-0", "4-0")
        redis.deliver(3)
        redis.acknowledge("1-0", "3-0")
        assert redis.trim() == 1
        assert redis.left() == ["2-0", "3-0", "4-0"]

    def test_the_slowest_of_the_groups_decides(self, redis):
        redis.group("memory")
        redis.group("audit")
        redis.add("1-0", "2-0", "3-0")
        redis.deliver(3, "memory")
        redis.acknowledge("1-0", "2-0", "3-0", name="memory")
        assert redis.trim() == 0
        redis.deliver(2, "audit")
        redis.acknowledge("1-0", name="audit")
        assert redis.trim() == 1
        assert redis.left() == ["2-0", "3-0"]

    def test_what_a_group_is_to_read_again_stays_although_later_entries_are_pending(self, redis):
        redis.group()
        redis.add("1-0", "2-0", "3-0")
        redis.deliver(3)
        redis.acknowledge("1-0", "2-0")
        assert redis("XGROUP", "SETID", TOPIC, "memory", "1-0") == "OK"
        assert redis.trim() == 1
        assert redis.left() == ["2-0", "3-0"]

    def test_ids_are_compared_as_numbers(self, redis):
        redis.group("memory")
        redis.group("audit")
        entries = [f"1700000000000-{count}" for count in range(8, 12)]
        redis.add(*entries)
        for name, read in (("memory", 2), ("audit", 3)):
            redis.deliver(read, name)
            redis.acknowledge(*entries[:read], name=name)
        assert redis.trim() == 2
        assert redis.left() == entries[2:]

    def test_a_stream_without_a_group_is_left_alone(self, redis):
        redis.add("1-0", "2-0")
        assert redis.trim() == 0
        assert redis.left() == ["1-0", "2-0"]

    def test_what_is_empty_missing_or_no_stream_does_not_keep_the_others_waiting(self, redis):
        redis.group(stream="empty")
        redis("SET", "text", "x")
        redis.group()
        redis.add("1-0")
        redis.deliver(1)
        redis.acknowledge("1-0")
        assert redis.trim("empty", "missing", "text", TOPIC) == 1
        assert redis("EXISTS", "missing") == "0"

    def test_a_full_redis_is_trimmed_too(self, redis):
        redis.group()
        redis.add("1-0")
        redis.deliver(1)
        redis.acknowledge("1-0")
        redis("CONFIG", "SET", "maxmemory", "1")
        try:
            assert "OOM" in redis("XADD", TOPIC, "2-0", "data", "x")
            assert redis.trim() == 1
        finally:
            redis("CONFIG", "SET", "maxmemory", "0")

    def test_the_memory_of_what_was_read_is_free_again(self, redis):
        redis.group()
        before = int(redis("MEMORY", "USAGE", TOPIC))
        for _ in range(20):
            redis("EVAL", _ADD_500, "1", TOPIC, "x" * 4000)
            redis("EVAL", _READ_ALL, "1", TOPIC)
        assert int(redis("MEMORY", "USAGE", TOPIC)) > 40_000_000
        assert redis.trim() == 10_000
        assert int(redis("MEMORY", "USAGE", TOPIC)) < before + 1000


_ADD_500 = "for _ = 1, 500 do redis.call('XADD', KEYS[1], '*', 'data', ARGV[1]) end"
_READ_ALL = """
local answer = redis.call('XREADGROUP', 'GROUP', 'memory', 'memory', 'STREAMS', KEYS[1], '>')
for _, entry in ipairs(answer[1][2]) do redis.call('XACK', KEYS[1], 'memory', entry[1]) end
"""


class TestForEver:
    @pytest.fixture
    def trimmer(self, tmp_path) -> Iterator:
        """Starts trim.sh; its messages go to a file."""
        log = tmp_path / "log"
        started = []

        def start(environment, seconds="0.1"):
            with log.open("w") as file:
                command = ["/bin/sh", str(FILES / "trim.sh"), "other", TOPIC]
                process = subprocess.Popen(command, env={**environment, "TRIM_SECONDS": seconds}, stderr=file)
            started.append(process)
            return process, log

        yield start
        for process in started:
            process.kill()
            process.wait()

    def test_it_trims_again_and_again_and_says_nothing(self, redis, trimmer):
        _, log = trimmer(redis.environment)
        redis.group()
        for entry in ("1-0", "2-0"):
            redis.add(entry)
            redis.deliver(1)
            redis.acknowledge(entry)
            wait_until(lambda: redis.left() == [])
        assert log.read_text() == ""

    def test_what_redis_refuses_is_told_and_tried_again(self, redis, trimmer):
        process, log = trimmer({**redis.environment, "REDISCLI_AUTH": "another"})
        wait_until(lambda: log.read_text().count("not trimmed, to be tried again") > 1)
        assert "WRONGPASS" in log.read_text()
        assert process.poll() is None

    def test_it_goes_when_it_is_told_to(self, redis, trimmer):
        redis.group()
        redis.add("1-0")
        redis.deliver(1)
        redis.acknowledge("1-0")
        process, _ = trimmer(redis.environment, seconds="60")
        wait_until(lambda: redis.left() == [])
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


class TestWithoutKubernetes:
    def test_make_local_trims_the_same_way(self, redis):
        redis("CONFIG", "SET", "requirepass", "")
        try:
            redis.group()
            redis.add("1-0", "2-0")
            redis.deliver(1)
            redis.acknowledge("1-0")
            assert trim.trim("127.0.0.1", redis.port, ["missing", TOPIC]) == ":1"
            assert redis.left() == ["2-0"]
        finally:
            redis("CONFIG", "SET", "requirepass", PASSWORD)

    def test_what_redis_refuses_is_its_answer(self, redis):
        assert trim.trim("127.0.0.1", redis.port, [TOPIC]).startswith("-NOAUTH")
