"""One part fails while people chat: no turn is lost or doubled, and nobody waits for long."""

import pytest
from support.people import PATIENCE_SECONDS, conversations, slowest

from cluster.deploy import DAPR_NAMESPACE
from cluster.kube import is_ready, wait_until

pytestmark = pytest.mark.e2e

PLACEMENT = "dapr-placement-server-0"


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
        assert person.was_heard(), person.said()
    assert slowest(people) < 10  # without the relay, a sidecar waits 20 s for the address that has gone
