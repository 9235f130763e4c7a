"""Local ports that lead to pods and Services, through the API server.

A sidecar listens on its pod's loopback only, and a cluster's addresses are seldom reachable from outside: a
port-forward works everywhere. It pins one pod and dies with it, so :class:`Reach` starts a new one when that happens.
"""

import re
import subprocess
import threading
from contextlib import ExitStack
from queue import Empty, Queue
from types import TracebackType
from typing import Final, Self

from cluster.errors import CommandError
from cluster.kube import Kube

START_SECONDS: Final = 20.0
PORTS_OF_KIND: Final = (30010, 30001)
"""Those of cluster/kind.yaml."""


class Forward:
    """One `kubectl port-forward`, to be closed after use: ``with Forward(kube, "daca", "pod/x", 3500) as local:``."""

    def __init__(self, kube: Kube, namespace: str, resource: str, port: int) -> None:
        """``resource`` is ``pod/<name>`` or ``service/<name>``.

        Raises:
            CommandError: nothing to forward to; the message is kubectl's.
        """
        self._what = f"{resource} port {port}"
        command = kube.target.kubectl_command("port-forward", "-n", namespace, resource, f":{port}")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=kube.target.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._said: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = f"http://127.0.0.1:{self._local_port()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it still forwards; it ends when its pod does."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        # To the end, also after the address: a full pipe would make kubectl wait.
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        with self._process.stdout as said:
            for line in said:
                self._said.put(line)
        self._said.put("")

    def _local_port(self) -> int:
        said = ""
        try:
            while line := self._said.get(timeout=START_SECONDS):
                if found := re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
                    return int(found[1])
                said = line.strip() or said
        except Empty:
            said = f"no answer after {START_SECONDS:.0f} s"
        self.close()
        raise CommandError(f"no way to {self._what}: {said}")


class Reach:
    """The address at which a Service of the target's namespace answers from this machine."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._forwards: dict[str, Forward] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for forward in self._forwards.values():
                stack.callback(forward.close)

    def url(self, service: str) -> str:
        """``http://host:port`` of a Service; ask again after a broken connection, it may have moved.

        A NodePort spreads requests over all pods. The bare node's is reachable, and kind's where cluster/kind.yaml
        leads it on to this machine; elsewhere it may not be.
        """
        namespace = self._kube.target.namespace
        port = self._kube.core.read_namespaced_service(service, namespace).spec.ports[0]
        if self._kube.target.cluster == "bare" and port.node_port:
            node = self._kube.core.list_node().items[0]
            address = next(item.address for item in node.status.addresses if item.type == "InternalIP")
            return f"http://{address}:{port.node_port}"
        if self._kube.target.cluster == "kind" and port.node_port in PORTS_OF_KIND:
            return f"http://localhost:{port.node_port}"
        forward = self._forwards.get(service)
        if forward is None or not forward.alive:
            forward = self._forwards[service] = Forward(self._kube, namespace, f"service/{service}", port.port)
        return forward.url
