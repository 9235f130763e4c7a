"""The relay between real sockets: what a sidecar and placement services see of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest
from placement_relay import dialer as dialing
from placement_relay import relay as relaying
from placement_relay.address import Address
from placement_relay.dialer import Dialer
from placement_relay.relay import CONNECTIONS, Relay

LOOPBACK = "127.0.0.1"
PATIENCE_SECONDS = 10


class Placement:
    """Answers each connection with its name, then echoes."""

    def __init__(self, name, host=LOOPBACK, port=0):
        self.name = name
        self.taken = []
        self.gone = threading.Event()
        """A sidecar has hung up."""
        self._listener = socket.create_server((host, port))
        self.address = Address(*self._listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            while True:
                connection, _ = self._listener.accept()
                self.taken.append(connection)
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _echo(self, connection):
        with suppress(OSError), connection:
            connection.sendall(self.name.encode())
            while data := connection.recv(65536):
                connection.sendall(data)
            self.gone.set()

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class BlackHole:
    """An address that answers nothing, as that of a pod that has gone: its queue of connections is full."""

    def __init__(self, stack, host):
        self._listener = stack.enter_context(socket.socket())
        self._listener.bind((host, 0))
        self._listener.listen(0)
        self.address = Address(*self._listener.getsockname())
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(self.address)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serving(stack):
    """Starts a placement service that ends with the test."""

    def serving(name, host=LOOPBACK, port=0):
        placement = Placement(name, host, port)
        stack.callback(placement.stop)
        return placement

    return serving


@pytest.fixture
def named(monkeypatch):
    """What the name ``placement`` stands for; a test changes the list. Addresses differ in their hosts."""
    hosts = []
    known = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        if host != "placement":
            return known(host, *arguments, **options)
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, arguments[0])) for each in hosts]

    monkeypatch.setattr(dialing.socket, "getaddrinfo", getaddrinfo)
    return hosts


@pytest.fixture
def start(stack):
    """Starts a relay to an address; gives the way to connect to it."""

    def start(placement, connect_seconds=0.2):
        listener = stack.enter_context(closing(socket.create_server((LOOPBACK, 0))))
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=Relay(Dialer(placement, connect_seconds)).serve, args=(listener,), daemon=True).start()

        def connect():
            connection = stack.enter_context(socket.create_connection(listener.getsockname(), 1))
            connection.settimeout(PATIENCE_SECONDS)
            return connection

        return connect

    return start


def free_port():
    with socket.create_server((LOOPBACK, 0)) as listener:
        return listener.getsockname()[1]


def received(connection, count):
    data = b""
    while len(data) < count and (more := connection.recv(65536)):
        data += more
    return data


def test_what_is_sent_arrives_both_ways(start, serving):
    sidecar = start(serving("one").address)()
    assert received(sidecar, 3) == b"one"
    sent = os.urandom(3_000_000)
    threading.Thread(target=sidecar.sendall, args=(sent,), daemon=True).start()
    assert received(sidecar, len(sent)) == sent


def test_the_sidecar_learns_that_placement_has_gone(start, serving):
    placement = serving("one")
    sidecar = start(placement.address)()
    assert received(sidecar, 3) == b"one"
    placement.taken[0].shutdown(socket.SHUT_RDWR)
    assert sidecar.recv(1) == b""


def test_placement_learns_that_the_sidecar_has_gone(start, serving):
    placement = serving("one")
    sidecar = start(placement.address)()
    assert received(sidecar, 3) == b"one"
    sidecar.close()
    assert placement.gone.wait(PATIENCE_SECONDS)


def test_a_placement_service_that_comes_later_is_found_while_the_sidecar_waits(start, serving):
    port = free_port()
    sidecar = start(Address(LOOPBACK, port))()
    threading.Timer(0.3, serving, ("late",), {"port": port}).start()  # some tries are refused before
    assert received(sidecar, 4) == b"late"


def test_an_address_that_answers_nothing_takes_no_longer_than_its_time_out(start, named, stack, serving):
    gone = BlackHole(stack, "127.0.0.2")
    serving("new", "127.0.0.3", gone.address.port)
    named += ["127.0.0.2", "127.0.0.3"]
    connect = start(Address("placement", gone.address.port))
    for _ in range(4):  # also where it is the first
        begun = time.monotonic()
        assert received(connect(), 3) == b"new"
        assert time.monotonic() - begun < 5  # gRPC alone would wait for 20


def test_connections_go_to_all_addresses_in_turn_whatever_their_order(start, named, serving):
    port = free_port()
    for number in (2, 3, 4):
        serving(str(number), f"127.0.0.{number}", port)
    connect = start(Address("placement", port))
    answers = []
    for number in range(6):
        named[:] = [f"127.0.0.{2 + (number + each) % 3}" for each in range(3)]
        answers.append(received(connect(), 1))
    assert answers == [b"2", b"3", b"4"] * 2


def test_the_name_is_asked_anew_for_each_try(start, named, stack, serving):
    gone = BlackHole(stack, "127.0.0.2")
    serving("new", "127.0.0.3", gone.address.port)
    named += ["127.0.0.2"]
    sidecar = start(Address("placement", gone.address.port))()
    threading.Timer(0.5, lambda: named.__setitem__(slice(None), ["127.0.0.3"])).start()
    assert received(sidecar, 3) == b"new"


def test_known_addresses_are_used_while_the_name_server_is_away(start, named, serving):
    placement = serving("one")
    named += [LOOPBACK]
    connect = start(Address("placement", placement.address.port))
    assert received(connect(), 3) == b"one"
    named.clear()
    assert received(connect(), 3) == b"one"


def test_a_sidecar_whose_placement_does_not_answer_is_let_go_and_the_log_names_the_address(start, monkeypatch, capsys):
    monkeypatch.setattr(relaying, "GIVE_UP_SECONDS", 0.3)
    port = free_port()
    sidecar = start(Address(LOOPBACK, port))()
    assert sidecar.recv(1) == b""
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["level"], line["placement"]) == ("ERROR", f"127.0.0.1:{port}")
    assert "refused" in line["error"]


def test_the_oldest_connection_is_closed_where_followers_were_left_open(start, serving):
    connect = start(serving("one").address)
    sidecars = [connect() for _ in range(CONNECTIONS)]
    assert all(received(sidecar, 3) == b"one" for sidecar in sidecars)
    newest = connect()
    assert received(newest, 3) == b"one"
    assert sidecars[0].recv(1) == b""
    for sidecar in (sidecars[1], newest):
        sidecar.sendall(b"still here")
        assert received(sidecar, 10) == b"still here"


class TestCommand:
    """``python -m placement_relay``."""

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "placement_relay", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_until_it_is_asked_to_go(self, number, serving):
        placement, port = serving("one"), free_port()
        command = [sys.executable, "-m", "placement_relay", "--listen", f"127.0.0.1:{port}", "--placement"]
        with subprocess.Popen([*command, str(placement.address)], stdout=subprocess.PIPE, text=True) as process:
            assert json.loads(process.stdout.readline())["message"] == "listening"
            with socket.create_connection((LOOPBACK, port)) as sidecar:
                assert received(sidecar, 3) == b"one"
                connected = json.loads(process.stdout.readline())
                assert connected["placement"] == str(placement.address)
                process.send_signal(number)
                assert process.wait(PATIENCE_SECONDS) == 0

    def test_a_port_that_is_taken_ends_it_and_is_named(self):
        with socket.create_server((LOOPBACK, 0)) as taken:
            at = f"127.0.0.1:{taken.getsockname()[1]}"
            done = self.run("--listen", at, "--placement", "placement:50005")
        assert done.returncode == 1
        assert at in done.stdout
        assert "in use" in done.stdout

    @pytest.mark.parametrize(
        ("option", "value", "says"),
        [
            ("--listen", "127.0.0.1", "does not end with a port"),
            ("--placement", "placement", "does not end with a port"),
            ("--placement", ":50005", "names no host"),
            ("--placement", "placement:65536", "does not end with a port"),
            ("--placement", "placement:\u0665", "does not end with a port"),
            ("--placement", "::1:50005", "in brackets"),
            ("--connect-timeout-ms", "0", "above 0"),
            ("--connect-timeout-ms", "half", "above 0"),
        ],
    )
    def test_a_wrong_option_is_named(self, option, value, says):
        given = {"--listen": "127.0.0.1:50005", "--placement": "placement:50005"} | {option: value}
        done = self.run(*(word for pair in given.items() for word in pair))
        assert done.returncode == 2
        assert option in done.stderr
        assert says in done.stderr


@pytest.mark.parametrize("text", ["placement.example:50005", "10.0.0.1:1", "[::1]:65535"])
def test_an_address_is_read_and_written_alike(text):
    assert str(Address.parse(text)) == text
