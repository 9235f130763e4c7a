"""Names the pods of an installed release that have no Dapr sidecar, and the mend.

`helm test` runs it before the conversation, which such pods make fail in ways that say less. A pod is given its sidecar
when it is made, or never: one that is made while Dapr's injector does not answer stays without, and is never ready.

Asks the API server with the service account of the pod it runs in, which may list the pods of its namespace. RELEASE in
the environment names the release.
"""

import http.client
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SIDECAR = "daprd"
SERVICES = ("chat-service", "agent-memory-service")

Pod = dict[str, Any]


class Wrong(Exception):
    """What is wrong, and the mend."""


def pods_of(namespace: str) -> list[Pod]:
    """The pods of the release in a namespace, as the API server lists them."""
    connection = http.client.HTTPSConnection(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        timeout=30,
        context=ssl.create_default_context(cafile=ACCOUNT / "ca.crt"),
    )
    ours = f"app.kubernetes.io/instance={os.environ['RELEASE']},app.kubernetes.io/name in ({','.join(SERVICES)})"
    query = urlencode({"labelSelector": ours})
    token = (ACCOUNT / "token").read_text()
    try:
        connection.request(
            "GET", f"/api/v1/namespaces/{namespace}/pods?{query}", headers={"Authorization": f"Bearer {token}"}
        )
        response = connection.getresponse()
        answer = response.read().decode()
    except OSError as error:
        raise Wrong(f"the API server cannot be asked for the pods of {namespace}: {error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise Wrong(f"the API server answers {response.status} when it is asked for the pods of {namespace}: {answer}")
    return list(json.loads(answer)["items"])


def asks_for_sidecar(pod: Pod) -> bool:
    """Whether a pod is to have a sidecar; one that is on its way out, or has ended, needs none any more."""
    metadata = pod["metadata"]
    ends = "deletionTimestamp" in metadata or pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return not ends and metadata.get("annotations", {}).get("dapr.io/enabled") == "true"


def has_sidecar(pod: Pod) -> bool:
    """Whether Dapr put its sidecar in, among the containers or as a native sidecar among the init containers."""
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    return SIDECAR in {container["name"] for container in containers}


def check(pods: list[Pod], namespace: str) -> int:
    """How many of the pods ask for a sidecar.

    Raises:
        Wrong: some of them have none.
    """
    asking = [pod for pod in pods if asks_for_sidecar(pod)]
    without = [pod["metadata"] for pod in asking if not has_sidecar(pod)]
    if without:
        names = sorted(str(pod["name"]) for pod in without)
        deployments = sorted({str(pod["labels"]["app.kubernetes.io/name"]) for pod in without})
        raise Wrong(
            "these pods have no Dapr sidecar, because they were made while Dapr's injector did not answer:\n"
            + "".join(f"  {name}\n" for name in names)
            + "As soon as it runs (kubectl get pods -A -l app=dapr-sidecar-injector), make them anew:\n"
            + f"  kubectl rollout restart deployment -n {namespace} {' '.join(deployments)}"
        )
    return len(asking)


if __name__ == "__main__":
    here = (ACCOUNT / "namespace").read_text()
    try:
        print(f"Each of the {check(pods_of(here), here)} pods that ask for a Dapr sidecar has one.")
    except Wrong as wrong:
        sys.exit(f"FAILED: {wrong}")
