"""The release: its test, upgrades and rollbacks, and the switch to a real model."""

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.e2e

KEY_SECRET = "gemini-api-key"
STAND_IN = "stand-in-for-gemini"
RETENTION = "chatService.retention.sessionSeconds=86400"


def test_helm_test_holds_a_conversation(cluster):
    assert "Succeeded" in cluster.helm("test", "daca", "--timeout", "120s")


def test_upgrade_and_rollback_keep_secrets_and_history(cluster, user_id):
    session_id = f"session-{user_id}"
    secrets = _made_once(cluster)
    revision = cluster.revision()
    cluster.client.send(user_id, "Hi there", session_id)
    pods = _names(cluster)

    cluster.upgrade("--set", f"chatService.actor.reentrancy=true,{RETENTION}")
    assert not _names(cluster) & pods
    assert _made_once(cluster) == secrets
    assert "Hi there" in cluster.client.send(user_id, "What did I say before?", session_id)["reply"]
    # Reentrancy is off by default; on, turns of one user still wait for each other.
    with ThreadPoolExecutor(8) as pool:
        turns = list(pool.map(lambda n: cluster.client.send(user_id, f"message {n}", session_id), range(8)))
    assert sorted(turn["sequence"] for turn in turns) == list(range(3, 11))
    assert 86_000 < int(cluster.redis("TTL", _key(user_id, "history"))) <= 86_400

    cluster.roll_back(revision)
    assert _made_once(cluster) == secrets
    last = max(turns, key=lambda turn: turn["sequence"])
    assert cluster.actor(user_id, "GetConversationHistory")[-1]["turn_id"] == last["turn_id"]
    assert len(cluster.said(session_id, 20)) == 20
    cluster.client.send(user_id, "Kept for ever again", session_id)
    assert int(cluster.redis("TTL", _key(user_id, "history"))) == -1


def test_who_comes_back_after_their_session_has_expired_starts_a_new_history_and_is_counted_on(cluster, user_id):
    revision = cluster.revision()
    try:
        cluster.upgrade("--set", RETENTION)
        for number in range(3):
            cluster.client.send(user_id, f"message {number}")
        cluster.redis("PEXPIRE", _key(user_id, "history"), "1")  # a day later
        cluster.upgrade("--set", f"{RETENTION},chatService.logLevel=DEBUG")  # their session is active nowhere
        answered = cluster.client.send(user_id, "What did I say before?")
        assert (answered["sequence"], "message" in answered["reply"]) == (4, False)
    finally:
        cluster.roll_back(revision)


def test_without_a_key_gemini_is_a_clear_503_and_a_key_made_later_is_used(cluster, user_id, stand_in, no_key):
    revision = cluster.revision()
    try:
        cluster.upgrade("--set", "model.provider=gemini", "--set", f"model.baseUrl={stand_in}")
        pods = _names(cluster)
        refused = cluster.chat({"user_id": user_id, "text": "Hi there"})
        assert refused.status == 503
        assert KEY_SECRET in refused.json()["detail"]
        assert cluster.actor(user_id, "GetConversationHistory") == []
        assert len(cluster.pods("chat-service")) == len(pods)

        _make_key(cluster, {KEY_SECRET: base64.b64encode(b"a-key\n").decode()})
        answered = cluster.wait_for(lambda: _ok(cluster.chat({"user_id": user_id, "text": "Hi there"})))
        assert answered["user_id"] == user_id
        assert _names(cluster) == pods
        containers = [item for pod in cluster.pods("chat-service") for item in pod.status.container_statuses]
        assert [item.restart_count for item in containers] == [0] * len(containers)
    finally:
        cluster.roll_back(revision)


@pytest.fixture
def no_key(cluster):
    """No key in the cluster; afterwards the one that was there."""
    core = cluster.kube.core
    kept = [secret for secret in core.list_namespaced_secret(cluster.namespace).items if _is_key(secret)]
    for _ in kept:
        core.delete_namespaced_secret(KEY_SECRET, cluster.namespace)
    yield
    if any(_is_key(secret) for secret in core.list_namespaced_secret(cluster.namespace).items):
        core.delete_namespaced_secret(KEY_SECRET, cluster.namespace)
    for secret in kept:
        _make_key(cluster, secret.data)


@pytest.fixture
def stand_in(cluster):
    """The address of a server that speaks the OpenAI chat API, in the place of Gemini's: no network here has it."""
    core, (model,) = cluster.kube.core, cluster.pods("offline-model")
    labels = {"app": STAND_IN}
    container = model.spec.containers[0]
    core.create_namespaced_pod(
        cluster.namespace,
        {
            "metadata": {"name": STAND_IN, "labels": labels},
            "spec": {
                "containers": [{"name": "model", "image": container.image}],
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": False,
            },
        },
    )
    core.create_namespaced_service(
        cluster.namespace,
        {"metadata": {"name": STAND_IN}, "spec": {"selector": labels, "ports": [{"port": 8002}]}},
    )
    yield f"http://{STAND_IN}:8002/v1"
    core.delete_namespaced_service(STAND_IN, cluster.namespace)
    core.delete_namespaced_pod(STAND_IN, cluster.namespace)


def _is_key(secret):
    return secret.metadata.name == KEY_SECRET


def _make_key(cluster, data):
    cluster.kube.core.create_namespaced_secret(cluster.namespace, {"metadata": {"name": KEY_SECRET}, "data": data})


def _made_once(cluster):
    """What the chart makes at the first install: the password of Redis, the token between sidecar and service."""
    return [cluster.kube.core.read_namespaced_secret(name, cluster.namespace).data for name in ("redis", "app-token")]


def _key(user_id, kind):
    return f"chat-service||UserSessionActor||{user_id}||{kind}-{user_id}"


def _names(cluster):
    return {pod.metadata.name for pod in cluster.pods("chat-service")}


def _ok(answer):
    return answer.json() if answer.status == 200 else None
