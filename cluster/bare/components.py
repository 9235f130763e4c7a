"""What runs inside the nodes, and how it is configured."""

import json
from pathlib import Path
from typing import Any, Final

from cluster import binaries
from cluster.bare import pki
from cluster.bare.layout import (
    FIRST,
    GATEWAY_ADDRESS,
    INTERNET_ADDRESS,
    NAMESERVER_ADDRESS,
    PODS,
    REGISTRY,
    SERVICES,
    STATE,
    Node,
)
from cluster.bare.packages import unpacked
from cluster.bare.processes import NETWORK, Component
from cluster.cache import CACHE

MOUNT_POINTS: Final = (Path("/var/lib/cni"), Path("/var/lib/kubelet"))
"""Folders that programs use whatever their settings. In a node they are below its state, here they stay empty."""
VOLUMES: Final = STATE / "volumes"
ETCD: Final = "http://127.0.0.1:2379"
CLUSTER_DOMAIN: Final = "cluster.local"
STORAGE_NAMESPACE: Final = "local-path-storage"
PAUSE_IMAGE: Final = f"{REGISTRY}/pause:latest"
HELPER_IMAGE: Final = f"{REGISTRY}/busybox:latest"
MAX_PODS: Final = 200

CONTAINERD_SOCKET: Final = Path("/run/containerd/containerd.sock")
"""As a node sees it: it has a /run of its own."""


def components(node: Node) -> list[Component]:
    """All components of a node, in the order in which they start. :func:`configure` has written what they read."""
    return [
        _internet(node),
        *([_registry(node)] if node.first else []),
        _containerd(node),
        *(_control_plane(node) if node.first else []),
        _kubelet(node),
        _kube_proxy(node),
        *([_coredns(node), _local_path_provisioner(node)] if node.first else []),
    ]


def configure(node: Node) -> None:
    """Writes the files that the node's components read."""
    in_state = [node.state / folder.relative_to("/") for folder in (Path("/var/log"), *MOUNT_POINTS)]
    for folder in (node.etc / "certs.d" / REGISTRY, node.etc / "cni", *MOUNT_POINTS, *in_state):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in configuration(node).items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        file = node.etc / name
        # Untouched unless it changes: kube-proxy ends when its file is written.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def configuration(node: Node) -> dict[str, str | dict[str, Any]]:
    """File below the node's ``etc`` -> what is in it."""
    plain = f"http://{REGISTRY}"
    files: dict[str, str | dict[str, Any]] = {
        f"certs.d/{REGISTRY}/hosts.toml": f'server = "{plain}"\n[host."{plain}"]\ncapabilities = ["pull", "resolve"]\n',
        "containerd.toml": _containerd_settings(node),
        "cni/10-pods.conflist": _pod_network(node),
        "kubelet.json": _kubelet_settings(node),
        "kube-proxy.json": _kube_proxy_settings(node),
    }
    if node.first:
        files |= {
            "registry.json": {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(CACHE / "registry")}, "delete": {"enabled": True}},
                "http": {"addr": REGISTRY},
            },
            "Corefile": _corefile(node),
            "local-path.json": {"sharedFileSystemPath": str(VOLUMES)},
            "helper-pod.json": _helper_pod(),
        }
    return files


def _packaged(program: str) -> str:
    return str(unpacked() / "usr" / "bin" / program)


def _kubernetes(program: str) -> str:
    return str(binaries.KUBERNETES.folder / program)


def _internet(node: Node) -> Component:
    # It relays connections of the node, as this machine's own: neither its firewall nor its routing has a part in it.
    # Nothing comes in this way, and nothing on the machine's loopback can be reached.
    command = (
        _packaged("pasta"),
        *("--foreground", "--stderr", "--quiet", "--runas=0", "--ipv4-only"),
        *("--netns", NETWORK, "--config-net", "--ns-ifname=internet"),
        *(f"--address={INTERNET_ADDRESS}", "--netmask=24", f"--gateway={GATEWAY_ADDRESS}"),
        *(f"--dns-forward={NAMESERVER_ADDRESS}", "--no-map-gw"),
        *("--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none"),
    )
    return Component(node, "internet", command, (Path("/etc/resolv.conf"),), needed=True, outside=True)


def _registry(node: Node) -> Component:
    settings = node.etc / "registry.json"
    command = (_packaged("docker-registry"), "serve", str(settings))
    return Component(node, "registry", command, (settings,), health=f"http://{REGISTRY}/v2/", needed=True)


def _containerd(node: Node) -> Component:
    settings = node.etc / "containerd.toml"
    command = (_packaged("containerd"), "--config", str(settings))
    return Component(node, "containerd", command, (settings,), health=f"unix:{CONTAINERD_SOCKET}", needed=True)


def _control_plane(node: Node) -> list[Component]:
    return [
        Component(
            node,
            "etcd",
            (
                f"{binaries.ETCD.folder}/etcd",
                f"--data-dir={STATE}/etcd",
                f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                f"--listen-metrics-urls=http://{node.address}:2381",
                "--log-level=warn",
            ),
            health=f"http://{node.address}:2381/health",
            needed=True,
        ),
        Component(
            node,
            "kube-apiserver",
            (
                _kubernetes("kube-apiserver"),
                f"--etcd-servers={ETCD}",
                f"--advertise-address={node.address}",
                f"--service-cluster-ip-range={SERVICES}",
                f"--tls-cert-file={pki.certificate('kube-apiserver')}",
                f"--tls-private-key-file={pki.key('kube-apiserver')}",
                f"--client-ca-file={pki.certificate('ca')}",
                f"--kubelet-certificate-authority={pki.certificate('ca')}",
                f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
                f"--kubelet-client-key={pki.key('kubelet-client')}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
                f"--service-account-key-file={pki.FOLDER}/sa.pub",
                f"--service-account-signing-key-file={pki.FOLDER}/sa.key",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged",
                "--profiling=false",
            ),
            health=f"https://{node.address}:6443/readyz",
            needed=True,
        ),
        Component(
            node,
            "kube-controller-manager",
            (
                _kubernetes("kube-controller-manager"),
                *_client_of_api_server(node, "kube-controller-manager"),
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--root-ca-file={pki.certificate('ca')}",
                f"--service-account-private-key-file={pki.FOLDER}/sa.key",
                f"--cluster-signing-cert-file={pki.certificate('ca')}",
                f"--cluster-signing-key-file={pki.key('ca')}",
                f"--flex-volume-plugin-dir={node.state}/flexvolume",
                "--profiling=false",
            ),
            health=f"https://{node.address}:10257/healthz",
        ),
        Component(
            node,
            "kube-scheduler",
            (
                _kubernetes("kube-scheduler"),
                *_client_of_api_server(node, "kube-scheduler"),
                "--leader-elect=false",
                "--profiling=false",
            ),
            health=f"https://{node.address}:10259/healthz",
        ),
    ]


def _kubelet(node: Node) -> Component:
    settings = node.etc / "kubelet.json"
    command = (
        _kubernetes("kubelet"),
        f"--config={settings}",
        f"--kubeconfig={pki.kubeconfig('kubelet', node.pki)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.state}/var/lib/kubelet",
    )
    return Component(node, "kubelet", command, (settings,), health=f"http://{node.address}:10248/healthz")


def _kube_proxy(node: Node) -> Component:
    settings = node.etc / "kube-proxy.json"
    command = (_kubernetes("kube-proxy"), f"--config={settings}")
    return Component(node, "kube-proxy", command, (settings,), health=f"http://{node.address}:10256/healthz")


def _coredns(node: Node) -> Component:
    settings = node.etc / "Corefile"
    command = (f"{binaries.COREDNS.folder}/coredns", "-conf", str(settings))
    return Component(node, "coredns", command, (settings,), health=f"http://{node.address}:8181/ready")


def _local_path_provisioner(node: Node) -> Component:
    settings, helper_pod = node.etc / "local-path.json", node.etc / "helper-pod.json"
    command = (
        f"{binaries.LOCAL_PATH_PROVISIONER.folder}/local-path-provisioner",
        "start",
        f"--config={settings}",
        f"--kubeconfig={pki.kubeconfig('local-path-provisioner')}",
        f"--helper-pod-file={helper_pod}",
        f"--helper-image={HELPER_IMAGE}",
        f"--namespace={STORAGE_NAMESPACE}",
        "--configmap-name=local-path-config",
        "--service-account-name=default",
    )
    return Component(node, "local-path-provisioner", command, (settings, helper_pod))


def _client_of_api_server(node: Node, name: str) -> list[str]:
    return [
        f"--kubeconfig={pki.kubeconfig(name)}",
        f"--authentication-kubeconfig={pki.kubeconfig(name)}",
        f"--authorization-kubeconfig={pki.kubeconfig(name)}",
        f"--bind-address={node.address}",
    ]


def _containerd_settings(node: Node) -> str:
    return f"""\
version = 2
root = "{node.state}/containerd"
state = "{CONTAINERD_SOCKET.parent}"
# What needs a file system or a kernel module that the node does without.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Containers within containers may not lower the score; a profile of AppArmor would stay in the kernel.
restrict_oom_score_adj = true
disable_apparmor = true
max_concurrent_downloads = 6
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{unpacked()}/usr/lib/cni"
conf_dir = "{node.etc}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{node.etc}/certs.d"
"""


def _pod_network(node: Node) -> dict[str, Any]:
    # Pods show their own addresses to each other, also across nodes; node-init.sh hides them from the internet.
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(node.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{node.state}/pod-addresses",
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _kubelet_settings(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate("kubelet-server", node.pki)),
        "tlsPrivateKeyFile": str(pki.key("kubelet-server", node.pki)),
        "healthzBindAddress": str(node.address),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.name}",
        # The machine may still have cgroups of version 1, and swap. It has its kernel parameters as it wants them:
        # node-init.sh keeps them from being written, and this gate has the kubelet live with that.
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "clusterDNS": [str(FIRST.address)],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": "",
        "maxPods": MAX_PODS,
        # A pod sees no sooner what changed in a ConfigMap; Dapr's wait there for a certificate that one of them makes.
        "syncFrequency": "10s",
        # The disk is the machine's, and its owner looks after it.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "podLogsDir": str(node.state / "pod-logs"),
        "volumePluginDir": str(node.state / "flexvolume"),
    }


def _kube_proxy_settings(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(pki.kubeconfig("kube-proxy"))},
        "hostnameOverride": node.name,
        "mode": "iptables",
        "clusterCIDR": str(PODS),
        "healthzBindAddress": f"{node.address}:10256",
        "metricsBindAddress": f"{node.address}:10249",
        # Zero: the sizes and times of the machine's connection tracking stay as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _corefile(node: Node) -> str:
    # As with kubeadm, and so kind and minikube, no name of the cluster is cached: a pod's new address is found at once.
    return f"""\
. {{
  bind {node.address}
  errors
  ready {node.address}:8181
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
    kubeconfig {pki.kubeconfig("coredns")}
    pods insecure
    ttl 5
  }}
  forward . {NAMESERVER_ADDRESS}
  cache 30 {{
    disable success {CLUSTER_DOMAIN}
    disable denial {CLUSTER_DOMAIN}
  }}
}}
"""


def _helper_pod() -> dict[str, Any]:
    # The provisioner adds volume, mounts and command; the pod makes the folder of a volume, open to every user.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "helper-pod", "image": HELPER_IMAGE}],
        },
    }
