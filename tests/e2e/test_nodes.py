"""Nodes of the bare kind come, are drained, lose their machine, and go; who chats meanwhile notices nothing.

The tests are one story in this order. At its end there are as many nodes as before.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event
from time import monotonic
from uuid import uuid4

import pytest

from cluster import rest
from cluster.bare import machine, node, processes
from cluster.bare.layout import FIRST, NODES, STATE
from cluster.client import CHAT, MEMORY
from cluster.kube import is_ready
from cluster.versions import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.bare]

SECOND = NODES[1]
PEOPLE = 4
PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 90
DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s")


@pytest.fixture(scope="module")
def two_nodes(cluster):
    """The cluster with two nodes; afterwards with as many as before, all its pods ready."""
    before = len(members(cluster))
    try:
        make_up(cluster, 2)
        yield cluster
    finally:
        if len(members(cluster)) != before:
            make_up(cluster, before)
        settled(cluster)
    cluster.settle()


def test_pods_spread_over_a_node_that_joins(two_nodes):
    assert members(two_nodes) == {FIRST.name: True, SECOND.name: True}
    spread(two_nodes)
    for one in (FIRST, SECOND):
        answer = rest.call("GET", f"http://{one.address}:30010/", timeout_seconds=10)
        assert answer.status == 200, f"the NodePort of {one.name}"
    for pod in two_nodes.pods(CHAT):
        answer = rest.call("GET", f"http://{pod.status.pod_ip}:8010/livez", timeout_seconds=10)
        assert answer.status == 200, f"{pod.metadata.name} on {pod.spec.node_name}"


def test_nobody_who_chats_notices_a_drain(two_nodes):
    with chatting(two_nodes, FIRST, SECOND):
        two_nodes.kube.target.kubectl("drain", SECOND.name, *DRAIN)
        assert hosts(two_nodes, CHAT) == hosts(two_nodes, MEMORY) == {FIRST.name}
        two_nodes.kube.target.kubectl("uncordon", SECOND.name)
        spread(two_nodes)


def test_make_up_mends_everything_after_a_reboot(two_nodes, user_id):
    session_id = f"session-{user_id}"
    two_nodes.client.send(user_id, "Hi there", session_id)
    before = two_nodes.said(session_id, 2)

    reboot(two_nodes)
    make_up(two_nodes)

    assert members(two_nodes) == {FIRST.name: True, SECOND.name: True}
    assert not_ready(two_nodes) == []
    assert two_nodes.said(session_id, 2) == before
    assert "Hi there" in two_nodes.client.send(user_id, "What did I say before?", session_id)["reply"]
    assert [entry["content"] for entry in two_nodes.said(session_id, 4)[:3:2]] == ["Hi there", "What did I say before?"]
    for one in (FIRST, SECOND):
        reserved = {file.name for file in (one.state / "pod-addresses" / "pods").glob("198.*")}
        assert reserved == {pod.status.pod_ip for pod in pods(two_nodes) if pod.spec.node_name == one.name}


def test_a_node_leaves_and_nothing_of_it_stays(two_nodes):
    with chatting(two_nodes, FIRST):
        make_up(two_nodes, 1)
    assert members(two_nodes) == {FIRST.name: True}
    assert {pod.spec.node_name for pod in pods(two_nodes)} == {FIRST.name}
    assert processes.strays(SECOND) == []
    assert machine.interfaces() == [FIRST.name]
    assert machine.cgroups([SECOND.name]) == []
    assert not SECOND.state.exists()


def make_up(cluster, nodes=None):
    """`make up`, by somebody who says how many nodes there shall be, or does not."""
    settings = [f"NODES={nodes}"] if nodes else []
    done = subprocess.run(
        ["make", "up", "CLUSTER=bare", f"NAMESPACE={cluster.namespace}", *settings],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def members(cluster):
    """The nodes by name, and whether they are ready."""
    return {
        item.metadata.name: any(told.type == "Ready" and told.status == "True" for told in item.status.conditions)
        for item in cluster.kube.core.list_node().items
    }


def pods(cluster):
    """The pods of all namespaces that have not done their work."""
    every = cluster.kube.core.list_pod_for_all_namespaces().items
    return [pod for pod in every if pod.status.phase != "Succeeded"]


def not_ready(cluster):
    """The names of the pods that should be ready and are not."""
    return [pod.metadata.name for pod in pods(cluster) if not (is_ready(pod) or pod.metadata.deletion_timestamp)]


def settled(cluster):
    """Waits until every pod is ready and none is on its way out."""
    cluster.wait_for(lambda: all(is_ready(pod) for pod in pods(cluster)), 150)


def hosts(cluster, app):
    """The nodes that ready pods of a service are on."""
    return {pod.spec.node_name for pod in cluster.pods(app)}


def spread(cluster):
    """What a user does who has a new node: pods stay where they are until they are made anew."""
    for app in (CHAT, MEMORY):
        cluster.kube.target.kubectl("rollout", "restart", "deployment", app, "-n", cluster.namespace)
    for app in (CHAT, MEMORY):
        cluster.kube.target.kubectl("rollout", "status", "deployment", app, "-n", cluster.namespace, "--timeout=150s")
    assert hosts(cluster, CHAT) == hosts(cluster, MEMORY) == {FIRST.name, SECOND.name}


def reboot(cluster):
    """What the end of the machine leaves behind: only what is on disk."""
    cluster.close()
    processes.kill(processes.strays())
    for one in NODES:
        node._end(one)
    assert node.leftovers() == [f"folder {STATE}"]
    cluster.kube.client.rest_client.pool_manager.clear()


@contextmanager
def chatting(cluster, *doors):
    """Several people chat while the block runs, each through one of the nodes; what they were told is in order."""
    stop = Event()
    with ThreadPoolExecutor(PEOPLE) as pool:
        addresses = [f"http://{doors[number % len(doors)].address}:30010/chat/" for number in range(PEOPLE)]
        people = [(f"e2e-{uuid4().hex[:12]}", address) for address in addresses]
        heard = {user_id: pool.submit(conversation, user_id, address, stop) for user_id, address in people}
        try:
            yield
        finally:
            stop.set()
    for user_id, future in heard.items():
        said = future.result()
        assert len(said) >= 2
        history = cluster.wait_for(lambda user_id=user_id, said=said: transcript(cluster, user_id, len(said)), 120)
        assert [(entry["role"], entry["content"]) for entry in history] == said


def conversation(user_id, address, stop):
    """One person's messages and the answers, without a pause that would be worth it, until ``stop``."""
    said = []
    for number in count(1):
        text = f"message {number}"
        said += [("user", text), ("assistant", answered(user_id, address, text, f"{user_id}-{number}"))]
        if stop.wait(PAUSE_SECONDS):
            return said
    raise AssertionError


def answered(user_id, address, text, key):
    """The reply to a message, which is sent under its key until there is one."""
    body = {"user_id": user_id, "text": text, "metadata": {"session_id": f"session-{user_id}"}}
    end = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            answer = rest.call("POST", address, body, headers={"Idempotency-Key": key})
            if answer.status == 200:
                return answer.json()["reply"]
            told = f"{answer.status} {answer.text}"
        except rest.Unreachable as error:
            told = str(error)
        assert monotonic() < end, f"{text!r} of {user_id} has no answer after {PATIENCE_SECONDS} s: {told}"


def transcript(cluster, user_id, entries):
    """The transcript, once it has as many entries."""
    history = cluster.client.transcript(f"session-{user_id}")
    return history if len(history) >= entries else None
