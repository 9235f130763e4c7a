"""Values that don't go together are refused with a message that names them and the mend."""

import pytest
from support.charts import CHART


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("redis.enabled=false", "set externalRedis.host"),
        ("externalRedis.host=redis.example.com", "set redis.enabled=false"),
        ("model.provider=vllm", "set model.name"),
        ("chatService.service.nodePort=30010", "set the type to NodePort"),
        (
            ",".join(
                f"{name}.service.type=NodePort,{name}.service.nodePort=30010"
                for name in ("chatService", "agentMemoryService")
            ),
            "both 30010",
        ),
        ("chatService.turn.waitSeconds=4", "chatService.turn.leaseSeconds (5)"),
        (
            "chatService.turn.openLimit=63",
            "chatService.turn.queueLimit (64) is more than chatService.turn.openLimit (63)",
        ),
        ("chatService.turn.keySeconds=60,model.timeoutSeconds=31", "chatService.turn.keySeconds (60) is less than 61"),
        (
            "chatService.retention.sessionSeconds=86399",
            "chatService.retention.sessionSeconds (86399) is less than chatService.turn.keySeconds (86400)",
        ),
        (
            "chatService.retention.sessionSeconds=86400,chatService.actor.idleTimeoutSeconds=86401",
            "is less than chatService.actor.idleTimeoutSeconds (86401)",
        ),
        ("redis.maxMemory=769mb", "more than 60 % of redis.resources.limits.memory (1280Mi)"),
        ("redis.maxMemory=1gb", "redis.maxMemory (1gb)"),
        ("redis.resources.limits.memory=1300M", "redis.maxMemory (768mb)"),
        ("redis.resources.limits.memory=1342177279", "redis.maxMemory (768mb)"),
        ("dapr.resiliency.event.maxRetries=30", "is 30000 ms, no more than dapr.pubsub.processingTimeoutMs (30000)"),
        ("dapr.resiliency.event.retryInterval=2m1.5s", "times maxRetries (35) is 4252500 ms"),
        ("dapr.resiliency.event.maxRetries=121", "is 121000 ms, more than twice dapr.pubsub.processingTimeoutMs"),
        ("dapr.resiliency.event.timeout=1m", "dapr.resiliency.event.timeout (1m) is no less than"),
        ("agentMemoryService.summary.quietSeconds=61", "agentMemoryService.summary.maxWaitSeconds"),
        ("dapr.appHealth.timeoutMs=1500", "dapr.appHealth.intervalSeconds"),
        ("shutdown.graceSeconds=60", "shutdown.sidecarBlockSeconds (45) is less than 68"),
        ("shutdown.sidecarBlockSeconds=55", "shutdown.terminationGracePeriodSeconds (60) is no more than 60"),
    ],
)
def test_values_that_do_not_go_together_are_refused(refusal, settings, told):
    assert told in refusal("--set", settings)


def test_all_that_is_wrong_is_told_at_once(refusal):
    message = refusal("--set", "redis.enabled=false,model.provider=vllm")
    assert "externalRedis.host" in message
    assert "model.name" in message


@pytest.mark.parametrize(
    "settings",
    [
        "model.provider=gemini",  # its key may come later
        "model.provider=vllm,model.name=qwen3",
        "redis.enabled=false,externalRedis.host=redis.example.com",
        "chatService.service.type=NodePort",
        "chatService.service.type=NodePort,chatService.service.nodePort=30010",
        "chatService.turn.keySeconds=60",
        "chatService.retention.sessionSeconds=86400",
        "redis.maxMemory=1228mb,redis.resources.limits.memory=2Gi",
        "redis.maxMemory=3gb,redis.resources.limits.memory=null",
        "dapr.pubsub.processingTimeoutMs=80000,dapr.resiliency.event.retryInterval=2.5s",
    ],
)
def test_values_that_go_together_are_taken(render, settings):
    assert render("--set", settings).names("Deployment") >= {"chat-service", "agent-memory-service"}


def test_a_cluster_without_dapr_is_told_how_to_get_it(helm):
    done = helm("template", "daca", CHART)
    assert done.returncode != 0
    assert "this cluster has no Dapr" in done.stderr
    assert "helm upgrade --install dapr dapr --repo https://dapr.github.io/helm-charts/ --version" in done.stderr
    assert "--api-versions dapr.io/v1alpha1 --api-versions dapr.io/v2alpha1" in done.stderr
