"""Pods: what runs in them, what they may do, what they log, and what happens when one goes."""

import subprocess
from uuid import uuid4

import pytest
from daca_common.logs import pseudonym

from cluster import placement
from cluster.bare import layout

pytestmark = pytest.mark.e2e

SERVICES = {"chat-service": 8010, "agent-memory-service": 8001}
NO_TURN = {"turn_id": "nobody", "lease_token": ""}


def test_the_second_message_is_answered_through_the_other_pod(cluster, user_id):
    first, second = cluster.pods("chat-service")[:2]
    with cluster.pod_url(first, 8010) as url:
        assert cluster.chat({"user_id": user_id, "text": "Hi there"}, url=url).status == 200
    with cluster.pod_url(second, 8010) as url:
        answer = cluster.chat({"user_id": user_id, "text": "What did I say before?"}, url=url)
    assert "Hi there" in answer.json()["reply"]


def test_a_chat_pod_is_deleted_and_nothing_is_forgotten(cluster, user_id):
    session_id = f"session-{user_id}"
    cluster.client.send(user_id, "Hi there", session_id)
    before = cluster.actor(user_id, "RenewTurn", NO_TURN)
    cluster.delete_pod(before["host"])
    assert "Hi there" in cluster.client.send(user_id, "What did I say before?", session_id)["reply"]

    cluster.settle()
    after = cluster.actor(user_id, "RenewTurn", NO_TURN)
    assert after["host"] != before["host"]
    assert after["activation_id"] != before["activation_id"]
    assert "What did I say before?" in cluster.client.send(user_id, "What did I say before?", session_id)["reply"]
    assert len(cluster.said(session_id, 6)) == 6


def test_redis_restarts_and_nothing_is_forgotten(cluster, user_id):
    session_id = f"session-{user_id}"
    cluster.client.initialise(
        user_id, {"name": "Aisha", "preferred_style": "formal", "user_summary": "Aisha likes maps."}
    )
    cluster.client.send(user_id, "Hi there", session_id)
    cluster.said(session_id, 2)
    (redis,) = cluster.pods("redis")
    cluster.delete_pod(redis.metadata.name)
    cluster.wait_for(lambda: [pod for pod in cluster.pods("redis") if pod.metadata.uid != redis.metadata.uid], 90)

    answer = cluster.wait_for(lambda: _answered(cluster, user_id, session_id), 60)
    assert "Hi there" in answer["reply"]
    assert cluster.client.memory(user_id)["name"] == "Aisha"
    assert cluster.said(session_id, 4)[0]["content"] == "Hi there"


def _answered(cluster, user_id, session_id):
    body = {"user_id": user_id, "text": "What did I say before?", "metadata": {"session_id": session_id}}
    answer = cluster.chat(body, key=f"after-restart-{user_id}")
    return answer.json() if answer.status == 200 else None


@pytest.mark.parametrize("app", SERVICES)
def test_every_replica_has_a_sidecar(cluster, app):
    pods = cluster.pods(app)
    assert len(pods) >= 2
    for pod in pods:
        containers = [item.name for item in [*pod.spec.containers, *(pod.spec.init_containers or [])]]
        assert "daprd" in containers
        with cluster.sidecar(pod) as sidecar:
            metadata = sidecar.metadata()
        assert metadata["id"] == app
        assert {"statestore", "pubsub"} <= {component["name"] for component in metadata["components"]}


@pytest.mark.parametrize("app", [*SERVICES, "offline-model", "redis"])
def test_containers_have_no_privileges(cluster, app):
    for pod in cluster.pods(app):
        for container in [*pod.spec.containers, *(pod.spec.init_containers or [])]:
            where = f"{pod.metadata.name}/{container.name}"
            context = container.security_context
            assert context.run_as_non_root or pod.spec.security_context.run_as_non_root, where
            assert context.read_only_root_filesystem, where
            assert context.allow_privilege_escalation is False, where
            assert context.capabilities.drop == ["ALL"], where
            profile = context.seccomp_profile or pod.spec.security_context.seccomp_profile
            assert profile.type == "RuntimeDefault", where
            assert container.resources.requests, where


@pytest.mark.parametrize("app", ["offline-model", "redis"])
def test_a_pod_that_asks_the_api_nothing_has_no_token(cluster, app):
    for pod in cluster.pods(app):
        mounts = [mount.mount_path for container in pod.spec.containers for mount in container.volume_mounts or []]
        assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounts


def test_each_service_logs_one_line_of_a_turn_without_text_or_user(cluster, user_id):
    secret = f"secret-{uuid4().hex}"
    key, session_id = uuid4().hex, f"session-{uuid4().hex}"
    body = {"user_id": user_id, "text": secret, "metadata": {"session_id": session_id}}
    answer = cluster.chat(body, key=key)
    assert answer.status == 200
    cluster.said(session_id, 2)

    lines = [line for app in SERVICES for pod in cluster.pods(app) for line in cluster.log(pod, app)]
    assert not [line for line in lines if secret in str(line) or user_id in str(line)]
    assert not [line for line in lines if key in str(line)]
    of_turn = [line for line in lines if line.get("turn") == pseudonym(key)]
    assert sorted(line["route"] for line in of_turn) == ["/chat/", "/conversations"]
    for line in of_turn:
        assert (line["status"], line["session"]) == (200, session_id)
        assert line["user"] == pseudonym(user_id)
        assert line["duration_ms"] > 0
        assert line["trace_id"]


def test_placement_knows_every_chat_pod(cluster):
    rows = placement.rows(cluster.kube)
    assert {row.pod for row in rows} == {pod.metadata.name for pod in cluster.pods("chat-service")}
    assert {row.actor_type for row in rows} == {"UserSessionActor"}
    assert all(row.active is not None for row in rows)


@pytest.mark.bare
def test_who_calls_a_service_that_is_not_there_is_refused_and_not_sent_to_the_internet(cluster):
    nobody = layout.SERVICES[-2]
    program = f"import urllib.request; urllib.request.urlopen('http://{nobody}:8010/', timeout=20)"
    (pod, *_) = cluster.pods("offline-model")
    called = cluster.kube.target.kubectl_command(
        "exec", "-n", cluster.namespace, pod.metadata.name, "--", "python3", "-c", program
    )
    done = subprocess.run(called, env=cluster.kube.target.env(), capture_output=True, text=True, check=False)
    assert "ConnectionRefusedError" in done.stderr
