"""`make down`: removes what `make up` made, and nothing else."""

from cluster import bare
from cluster.actions import take
from cluster.dapr import INJECTED, definitions
from cluster.deploy import DAPR_NAMESPACE, DAPR_RELEASE, RELEASE
from cluster.engine import ENGINE_CLUSTERS, answering_engine
from cluster.errors import CommandError
from cluster.kube import MADE_BY_UP, Kube, api_errors, wait_until
from cluster.steps import say, step
from cluster.target import BARE_KUBECONFIG, RECORD, made, record_made, recorded

GONE_SECONDS = 180


def down(requested: str, namespace: str) -> None:
    """Takes down the cluster that `up` recorded, or ``requested``; without either, whatever is left of a bare node."""
    if not requested and not RECORD.exists():
        if made():  # an `up` that was interrupted
            requested = min(made())
        elif bare.leftovers():
            requested = "bare"
        else:
            say("nothing is up")
            return
    target = recorded(requested, namespace)
    if target.cluster == "bare":
        with step("the bare node is gone"):
            bare.down()
        BARE_KUBECONFIG.unlink(missing_ok=True)
    elif target.cluster in made():
        take(ENGINE_CLUSTERS[target.cluster](answering_engine() or "docker").delete())
        record_made(made() - {target.cluster})
    else:
        with api_errors():
            _remove(Kube(target))
    RECORD.unlink(missing_ok=True)


def _remove(kube: Kube) -> None:
    namespace = kube.target.namespace
    made = kube.made_by_up(namespace)
    if not made:
        say(f"`make up` made nothing in namespace {namespace} of {kube.target.context}")
        return
    if "release" in made:
        with step("the chat and its memory are gone, with all history"):
            kube.target.helm("uninstall", RELEASE, "--namespace", namespace, "--ignore-not-found", "--wait")
            selector = f"app.kubernetes.io/instance={RELEASE}"
            # Helm leaves what a StatefulSet claimed, and a secret it was told to keep.
            kube.core.delete_collection_namespaced_persistent_volume_claim(namespace, label_selector=selector)
            kube.core.delete_collection_namespaced_secret(namespace, label_selector=selector)
    if "dapr" in made:
        _remove_dapr(kube, made)
    if "namespace" in made:
        _remove_namespace(kube, namespace)
    else:
        kube.core.patch_namespace(namespace, {"metadata": {"annotations": {MADE_BY_UP: None}}})
    if kube.target.cluster in ENGINE_CLUSTERS:
        say(f"{kube.target.cluster} stays, `make up` did not make it; the images that it loaded are still on its nodes")
    else:
        say("images that `make up` pushed are still in the registry")


def _remove_dapr(kube: Kube, made: set[str]) -> None:
    users = kube.core.list_pod_for_all_namespaces(label_selector=INJECTED).items
    others = {pod.metadata.namespace for pod in users} - {kube.target.namespace}
    if others:
        say(f"Dapr stays, though `make up` installed it: pods in {', '.join(sorted(others))} use it")
        return
    with step("Dapr is gone"):
        kube.target.helm("uninstall", DAPR_RELEASE, "--namespace", DAPR_NAMESPACE, "--ignore-not-found", "--wait")
        # Claims of a StatefulSet stay, here too.
        claims = "app=dapr-scheduler-server"
        kube.core.delete_collection_namespaced_persistent_volume_claim(DAPR_NAMESPACE, label_selector=claims)
        if "dapr-definitions" in made:  # Helm never removes what a chart's crds/ folder brought
            for name in definitions(kube):
                kube.extensions.delete_custom_resource_definition(name)
    if "dapr-namespace" in made:
        _remove_namespace(kube, DAPR_NAMESPACE)


def _remove_namespace(kube: Kube, name: str) -> None:
    with step(f"namespace {name} is gone"):
        if kube.namespace(name) is not None:
            kube.core.delete_namespace(name)
        if not wait_until(lambda: kube.namespace(name) is None, GONE_SECONDS, every_seconds=1):
            raise CommandError(f"namespace {name} is still there after {GONE_SECONDS} s: `kubectl describe ns {name}`")
