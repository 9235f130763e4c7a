"""What is asked of Kubernetes' API: GETs only, with short time-outs, and errors in one line."""

import json
import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import kubernetes
import urllib3
from kubernetes.client import ApiException

from actor_load.errors import LoadError
from actor_load.placement.pods import Pod

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 3.0
"""An answer takes milliseconds. A pod that is gone is a silence, and would hold up the sample."""

CONNECTIONS: Final = 32
"""Kept open between samples; as many pods are asked at the same moment."""

GATEWAY_TIMEOUT: Final = 504
"""What a silence is counted as: the API server itself is seldom silent, but what it stands in front of may be."""

Json = Any
"""Objects as the API gives them; every field that is not mandatory may be missing."""


class KubeError(LoadError):
    """The API refused, or did not answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """``status`` is that of HTTP; ``None`` where nothing answered."""
        super().__init__(message)
        self.status = status


def api_client(kube_context: str = "") -> Any:
    """An ``ApiClient``: by the kubeconfig (``KUBECONFIG``, else ``~/.kube/config``), in a pod by its service account.

    Raises:
        LoadError: there is no such context, or no cluster to talk to.
    """
    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    given = any(Path(file).is_file() for file in files.split(os.pathsep))
    configuration: Any = kubernetes.client.Configuration()
    # One try and no long waits: the next sample is the next try.
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    try:
        if given or kube_context:
            kubernetes.config.load_kube_config(files, kube_context or None, client_configuration=configuration)
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes.config.load_incluster_config(configuration)
        else:
            raise LoadError(f"no cluster: there is no kubeconfig {files}; set KUBECONFIG, or run in a pod")
    except kubernetes.config.ConfigException as error:
        source = f"kubeconfig {files}" if given or kube_context else "this pod's service account"
        named = f", --kube-context {kube_context}" if kube_context else ""
        raise LoadError(f"{source}{named}: {' '.join(str(error).split())}") from error
    return kubernetes.client.ApiClient(configuration)


class Kube:
    """The API of one cluster. Every method raises :class:`KubeError`; it may be called from many threads."""

    def __init__(self, kube_context: str = "") -> None:
        self.client = api_client(kube_context)

    def version(self) -> str:
        """Of Kubernetes, as ``v1.34.4``."""
        return str(json.loads(self._get("version", "/version"))["gitVersion"])

    def namespace(self, name: str) -> Json:
        """A namespace."""
        return json.loads(self._get("get namespaces", f"/api/v1/namespaces/{quote(name)}", name))

    def deployment(self, namespace: str, name: str) -> Json:
        """A Deployment."""
        path = f"/apis/apps/v1/namespaces/{quote(namespace)}/deployments/{quote(name)}"
        return json.loads(self._get("get deployments", path, namespace))

    def pods(self, namespace: str, selector: str) -> list[Pod]:
        """The pods of a namespace that a label selector finds, by name; not those that are done."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods?labelSelector={quote(selector)}"
        found = json.loads(self._get("list pods", path, namespace))["items"]
        running = (pod for pod in found if pod["status"].get("phase") not in {"Succeeded", "Failed"})
        return sorted(map(Pod.of, running))

    def from_pod(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        """What a pod answers to a GET, through the API server: the port has to listen on the pod's own address."""
        url = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}:{port}/proxy{path}"
        return self._get("get pods/proxy", url, namespace)

    def from_kubelet(self, node: str, path: str) -> bytes:
        """What the kubelet of a node answers to a GET, through the API server."""
        return self._get("get nodes/proxy", f"/api/v1/nodes/{quote(node)}/proxy{path}")

    def _get(self, right: str, path: str, namespace: str = "") -> bytes:
        """GETs a path; ``right`` is the verb and the resource of RBAC that it takes."""
        configuration = self.client.configuration
        headers: dict[str, str] = {}
        self.client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        try:
            answer = self.client.call_api(
                "GET", configuration.host + path, headers, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
            body = bytes(answer.read())
        except urllib3.exceptions.ReadTimeoutError as error:
            raise KubeError(
                f"no answer within {READ_SECONDS:g} s of the cluster's API at {configuration.host}", GATEWAY_TIMEOUT
            ) from error
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            raise KubeError(f"the cluster's API at {configuration.host} does not answer: {reason(error)}") from error
        if 200 <= answer.status < 300:
            return body
        raise _refusal(answer.status, body, right, namespace)


def _refusal(status: int, body: bytes, right: str, namespace: str) -> KubeError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")
    if status == 401:
        return KubeError("the cluster's API does not take these credentials: renew those of the kubeconfig", status)
    if status == 403:
        verb, _, resource = right.partition(" ")
        who = found[1] if (found := re.search(r'User "([^"]+)"', message)) else "this user"
        where, kind = (f"in namespace {namespace}", "Role") if namespace else ("of the cluster", "ClusterRole")
        group = "apps" if resource == "deployments" else ""
        return KubeError(
            f"{who} may not {verb} {resource} {where}: bind it a {kind} with "
            f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{verb}]}}, as charts/load-tests does',
            status,
        )
    return KubeError(f"{right}: the cluster's API answered {status}: {' '.join(message.split())}", status)


def reason(error: Exception) -> str:
    """The cause in words: urllib3 wraps it, and puts an object in front; of TLS the client makes a refusal."""
    cause = str(getattr(error, "reason", None) or error)
    return " ".join(re.sub(r"^[^()]*\(.*?\): |^<[^>]*>: ", "", cause).split()) or type(error).__name__
