"""One part fails while people chat: no turn is lost or doubled, and nobody waits for long."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from uuid import uuid4

import pytest

from cluster import rest
from cluster.deploy import DAPR_NAMESPACE
from cluster.kube import is_ready, wait_until

pytestmark = pytest.mark.e2e

PEOPLE = 6
PAUSE_SECONDS = 0.2
MOST = 90
"""Messages of one person, whose transcript is one page."""
PATIENCE_SECONDS = 60
PLACEMENT = "dapr-placement-server-0"


class Person:
    """Sends numbered messages, one after the other, each under a key until it is answered."""

    def __init__(self, cluster, user_id):
        self.user_id = user_id
        self.waits = []
        """Seconds until each was answered."""
        self._cluster = cluster

    def talk(self, done):
        while not done.wait(PAUSE_SECONDS) and len(self.waits) < MOST:
            self._say(f"message {len(self.waits)}")

    def said(self):
        """The transcript's messages."""
        history = self._cluster.memory("GET", f"conversations/{self.user_id}?limit=200").json()["history"]
        return [entry["content"] for entry in history if entry["role"] == "user"]

    def _say(self, text):
        body = {"user_id": self.user_id, "text": text, "metadata": {"session_id": self.user_id}}
        key, begun = uuid4().hex, time.monotonic()
        while not self._is_answered(body, key):
            assert time.monotonic() - begun < PATIENCE_SECONDS, f"{text} of {self.user_id} is not answered"
            time.sleep(0.1)
        self.waits.append(time.monotonic() - begun)

    def _is_answered(self, body, key):
        try:
            return self._cluster.chat(body, key=key).status == 200
        except rest.Unreachable:
            return False


@contextmanager
def conversations(cluster, user_id):
    """People who chat, before, while and after the block is run."""
    people = [Person(cluster, f"{user_id}-{number}") for number in range(PEOPLE)]
    done = Event()

    def go_on():
        wanted = [len(person.waits) + 5 for person in people]
        assert wait_until(
            lambda: all(len(person.waits) >= count for person, count in zip(people, wanted, strict=True)),
            PATIENCE_SECONDS,
        )

    with ThreadPoolExecutor(PEOPLE) as pool:
        talks = [pool.submit(person.talk, done) for person in people]
        try:
            go_on()
            yield people
            go_on()
        finally:
            done.set()
    for talk in talks:
        talk.result()


@pytest.mark.parametrize("grace", [None, 0], ids=["deleted", "killed"])
def test_a_new_placement_service_is_found_at_once(cluster, user_id, grace):
    core = cluster.kube.core
    before = core.read_namespaced_pod(PLACEMENT, DAPR_NAMESPACE).metadata.uid

    def is_back():
        pods = {pod.metadata.name: pod for pod in cluster.kube.pods(DAPR_NAMESPACE)}
        placement = pods.get(PLACEMENT)
        return placement is not None and placement.metadata.uid != before and is_ready(placement)

    with conversations(cluster, user_id) as people:
        core.delete_namespaced_pod(PLACEMENT, DAPR_NAMESPACE, grace_period_seconds=grace)
        assert wait_until(is_back, PATIENCE_SECONDS)
    cluster.settle()
    for person in people:
        sent = [f"message {number}" for number in range(len(person.waits))]
        assert wait_until(lambda person=person, sent=sent: person.said() == sent, PATIENCE_SECONDS), person.said()
    slowest = max(wait for person in people for wait in person.waits)
    print(f"slowest of {sum(len(person.waits) for person in people)} turns: {slowest:.1f} s")
    assert slowest < 10  # without the relay, a sidecar waits 20 s for the address that has gone
