"""The end of a process: SIGTERM drains, a second one does not wait."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

SERVICE = """
import asyncio
from daca_common import server
from daca_common.health import Health, OpenRequests
from daca_common.settings import ServiceSettings
from fastapi import FastAPI

health = Health()
health.ready = True
app = FastAPI()
app.include_router(health.router())

@app.get("/slow")
async def slow() -> str:
    await asyncio.sleep(1.5)
    return "done"

async def drain():
    await health.drain()
    {fault}

app.add_middleware(OpenRequests, health=health)
server.run(app, ServiceSettings({host}port={port}, shutdown_grace_seconds={grace}), drain)
"""


class Process:
    """A service in a process of its own."""

    def __init__(self, port: int, *, grace: float = 30, fault: str = "pass", host: str = 'host="127.0.0.1", ') -> None:
        self.url = f"http://127.0.0.1:{port}"
        code = SERVICE.format(host=host, port=port, grace=grace, fault=fault)
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        self.until("/livez", 200)

    def probe(self, path: str) -> int:
        try:
            return httpx2.get(self.url + path, trust_env=False).status_code
        except httpx2.TransportError:
            return 0

    def until(self, path: str, status: int) -> None:
        deadline = time.monotonic() + 30
        while self.probe(path) != status:
            assert time.monotonic() < deadline, f"{path} does not answer {status}"
            time.sleep(0.05)

    def slow_request(self) -> tuple[threading.Thread, list[str]]:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(httpx2.get(f"{self.url}/slow", trust_env=False).json()))
        thread.start()
        time.sleep(0.3)
        return thread, said

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.process.kill()
        process.process.wait()


def test_an_open_request_is_answered_before_the_process_ends(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port))
    thread, said = service.slow_request()
    service.send(signal.SIGTERM)
    service.until("/readyz", 503)
    assert [service.probe(path) for path in ("/livez", "/healthz/app")] == [200, 200]
    thread.join()
    assert said == ["done"]
    assert service.process.wait(10) == 0


def test_by_default_it_listens_on_the_addresses_of_both_families(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port, host=""))
    service.url = f"http://[::1]:{free_port}"
    service.until("/livez", 200)


def test_a_drain_that_takes_too_long_is_cut(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port, grace=0.5, fault="await asyncio.sleep(60)"))
    service.send(signal.SIGTERM)
    assert service.process.wait(10) == 0


def test_a_drain_that_fails_ends_the_process_all_the_same(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port, fault="1 / 0"))
    service.send(signal.SIGTERM)
    assert service.process.wait(10) == 0


def test_a_second_sigterm_does_not_wait(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port, fault="await asyncio.sleep(60)"))
    service.send(signal.SIGTERM)
    service.until("/readyz", 503)
    service.send(signal.SIGTERM)
    service.process.wait(10)
    assert service.probe("/livez") == 0


def test_ctrl_c_ends_it_at_once_and_without_an_error(processes: list[Process], free_port: int) -> None:
    processes.append(service := Process(free_port, fault="await asyncio.sleep(60)"))
    service.send(signal.SIGINT)
    assert service.process.wait(10) == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_with_a_problem(processes: list[Process], free_port: int, sent: bytes) -> None:
    processes.append(Process(free_port))
    with socket.create_connection(("127.0.0.1", free_port), timeout=10) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["type"] == "/problems/invalid-http"
