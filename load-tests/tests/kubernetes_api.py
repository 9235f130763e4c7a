"""A Kubernetes API server that answers what a test tells it to: for what only a broken or a large cluster shows.

Its answers are shortened from those of a cluster with Kubernetes 1.34 and Dapr 1.18.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

PLACEMENT = "/api/v1/namespaces/dapr-system/pods?labelSelector=app%3Ddapr-placement-server"
SCHEDULERS = "/api/v1/namespaces/dapr-system/pods?labelSelector=app%3Ddapr-scheduler-server"
PODS = "/api/v1/namespaces/daca/pods?labelSelector=app%3Dchat"
DEPLOYMENT = "/apis/apps/v1/namespaces/daca/deployments/chat-service"
NODE = "/api/v1/nodes/node-1/proxy/metrics/resource"
CADVISOR = "/api/v1/nodes/node-1/proxy/metrics/cadvisor"
USER = "system:serviceaccount:daca:load-tests"


def state(name="dapr-placement-server-0"):
    """Path of the placement table that a replica has."""
    return f"/api/v1/namespaces/dapr-system/pods/{name}:8080/proxy/placement/state"


def metadata(name, port=3501):
    """Path of a sidecar's metadata."""
    return f"/api/v1/namespaces/daca/pods/{name}:{port}/proxy/v1.0/metadata"


def metrics(name, port=9090):
    """Path of a sidecar's metrics."""
    return f"/api/v1/namespaces/daca/pods/{name}:{port}/proxy/metrics"


def scheduler(*arguments, version="1.19.0"):
    """A pod of Dapr's scheduler: a container of the name that the chart gives it."""
    found = pod("dapr-scheduler-server-0", "10.0.9.2", arguments=arguments, containers=("dapr-scheduler-server",))
    found["spec"]["containers"][0]["image"] = f"registry/scheduler:{version}"
    return found


def pod(
    name,
    ip="",
    *,
    ready=True,
    leaving=False,
    arguments=(),
    containers=("chat-service", "daprd"),
    phase="Running",
    limits=None,
):
    """A pod as the API lists it; ``limits`` of its CPU by container."""
    deletion = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    return {
        "metadata": {"name": name, **deletion},
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {
                    "name": container,
                    "image": f"registry/{container}:1.2.3",
                    "args": ["/daprd", *arguments],
                    **({"resources": {"limits": {"cpu": limits[container]}}} if container in (limits or {}) else {}),
                }
                for container in containers
            ],
        },
        "status": {
            "phase": phase,
            **({"podIP": ip} if ip else {}),
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"restartCount": 1}, {"restartCount": 0}],
        },
    }


def items(*found):
    """A list of objects."""
    return 200, {"items": list(found)}


def table(*addresses, version=7):
    """What the leading replica of placement answers."""
    hosts = [
        {"name": address, "entities": ["UserSessionActor"], "id": "chat-service", "namespace": "daca"}
        for address in addresses
    ]
    return 200, {"tables": {"daca": {"hosts": hosts, "version": version}}}


def runtime(active, *, placed=True):
    """What a sidecar says of itself. A count of 0 is left out, as by the real one."""
    return 200, {
        "id": "chat-service",
        "runtimeVersion": "1.18.1",
        "actorRuntime": {
            "runtimeStatus": "RUNNING",
            "activeActors": [{"type": "UserSessionActor", **({"count": active} if active else {})}],
            **({"hostReady": True} if placed else {}),
        },
    }


def counters(**counts):
    """The metrics page of a sidecar; what has not happened yet is not in it."""
    lines = ["# HELP dapr_http_server_request_count x", 'dapr_http_server_request_count{app_id="chat-service"} 5']
    for name, (first, second) in counts.items():
        lines += [
            f"# TYPE dapr_runtime_actor_{name} counter",
            f'dapr_runtime_actor_{name}{{actor_type="UserSessionActor",app_id="chat-service"}} {first}',
            f'dapr_runtime_actor_{name}{{actor_type="Other",app_id="chat-service"}} {second}',
        ]
    return 200, "\n".join(lines) + "\n"


def usage(at, **used):
    """A kubelet's page: container of pod ``chat-a`` -> CPU seconds and bytes, measured at ``at``."""
    lines = []
    for container, (seconds, memory) in used.items():
        labels = f'{{container="{container}",namespace="daca",pod="chat-a"}}'
        lines += [
            f"container_cpu_usage_seconds_total{labels} {seconds} {int(at * 1000)}",
            f"container_memory_working_set_bytes{labels} {memory:e} {int(at * 1000)}",
            f"container_start_time_seconds{labels} 1.7e+09",
        ]
    return 200, "\n".join(lines) + "\n"


def throttling(**counted):
    """What cAdvisor in the kubelet tells: container of pod ``chat-a`` -> periods, and those in which it was stopped."""
    lines = []
    for container, (periods, stopped) in {"": (999, 999), **counted}.items():
        labels = f'{{container="{container}",id="/kubepods/x",image="i",name="n",namespace="daca",pod="chat-a"}}'
        lines += [
            f"container_cpu_cfs_periods_total{labels} {periods} 1700000000000",
            f"container_cpu_cfs_throttled_periods_total{labels} {stopped} 1700000000000",
            f"container_cpu_cfs_throttled_seconds_total{labels} 0.5 1700000000000",
        ]
    return 200, "\n".join(lines) + "\n"


def forbidden(message="is forbidden"):
    """What RBAC answers."""
    return 403, {"kind": "Status", "message": f'pods {message}: User "{USER}" cannot do that'}


def unreachable(reason="dial tcp 10.0.0.1:3501: connect: connection refused"):
    """What the API server answers for a pod that does not."""
    return 503, {"kind": "Status", "message": f"error trying to reach service: {reason}"}


class KubernetesApi:
    """``answers``: path -> status and body, or a function that gives them."""

    def __init__(self, url, kubeconfig):
        self.url = url
        self.kubeconfig = kubeconfig
        self.asked = []
        self.connections = set()
        self.answers = {
            "/version": (200, {"gitVersion": "v1.34.4"}),
            DEPLOYMENT: (200, {"spec": {"selector": {"matchLabels": {"app": "chat"}}}}),
            "/api/v1/namespaces/daca": (200, {}),
            PLACEMENT: items(pod("dapr-placement-server-0", "10.0.9.1", containers=("placement",))),
            SCHEDULERS: items(scheduler()),
            PODS: items(pod("chat-a", "10.0.0.1"), pod("chat-b", "10.0.0.2")),
            state(): table("10.0.0.1:50002", "10.0.0.2:50002"),
            metadata("chat-a"): runtime(30),
            metadata("chat-b"): runtime(10),
            metrics("chat-a"): counters(),
            metrics("chat-b"): counters(),
            NODE: usage(1000),
        }

    def answer(self, path):
        """Status and body."""
        self.asked.append(path)
        found = self.answers.get(path, (404, {"kind": "Status", "message": f"{path} not found"}))
        return found() if callable(found) else found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self):
        self.server.api.connections.add(self.client_address)
        status, body = self.server.api.answer(self.path)
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self):
        try:
            super().handle()
        except ConnectionError:  # who asked did not wait
            self.close_connection = True

    def log_message(self, *_):
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    api: KubernetesApi


@contextmanager
def serving(folder):
    """A :class:`KubernetesApi` on a loopback port, and a kubeconfig of it below ``folder``."""
    server = _Server(("127.0.0.1", 0), _Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "clusters": [{"name": "here", "cluster": {"server": url}}],
                "users": [{"name": "me", "user": {"token": "secret"}}],
            }
        )
    )
    server.api = KubernetesApi(url, kubeconfig)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
