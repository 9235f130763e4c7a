"""What runs inside the node, and how it is configured."""

import json
from pathlib import Path
from typing import Any, Final

from cluster import binaries
from cluster.bare import pki
from cluster.bare.layout import (
    GATEWAY_ADDRESS,
    INTERNET_ADDRESS,
    NAME,
    NAMESERVER_ADDRESS,
    NODE_ADDRESS,
    PODS,
    REGISTRY,
    SERVICES,
    STATE,
)
from cluster.bare.packages import unpacked
from cluster.bare.processes import NETWORK, Component
from cluster.cache import CACHE

ETC: Final = STATE / "etc"
KUBELET: Final = STATE / "var" / "lib" / "kubelet"
MOUNT_POINTS: Final = (Path("/var/lib/cni"), Path("/var/lib/kubelet"))
"""Folders that programs use whatever their settings. In the node they are below the state, here they stay empty."""
VOLUMES: Final = STATE / "volumes"
ETCD: Final = "http://127.0.0.1:2379"
CLUSTER_DOMAIN: Final = "cluster.local"
STORAGE_NAMESPACE: Final = "local-path-storage"
PAUSE_IMAGE: Final = f"{REGISTRY}/pause:latest"
HELPER_IMAGE: Final = f"{REGISTRY}/busybox:latest"
MAX_PODS: Final = 200

CONTAINERD_SOCKET: Final = Path("/run/containerd/containerd.sock")
"""As the node sees it: it has a /run of its own."""

API_SERVER: Final = "kube-apiserver"
"""What starts after it is a client of it."""


def components() -> list[Component]:
    """All components, in the order in which they start. :func:`configure` has written what they read."""
    etcd, kubernetes = binaries.ETCD.folder, binaries.KUBERNETES.folder
    packaged = unpacked() / "usr" / "bin"
    return [
        Component("internet", _internet(f"{packaged}/pasta"), (Path("/etc/resolv.conf"),), outside=True),
        Component(
            "registry",
            (f"{packaged}/docker-registry", "serve", f"{ETC}/registry.json"),
            (ETC / "registry.json",),
            health=f"http://{REGISTRY}/v2/",
        ),
        Component(
            "containerd",
            (f"{packaged}/containerd", "--config", f"{ETC}/containerd.toml"),
            (ETC / "containerd.toml",),
            health=f"unix:{CONTAINERD_SOCKET}",
        ),
        Component(
            "etcd",
            (
                f"{etcd}/etcd",
                f"--data-dir={STATE}/etcd",
                f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                f"--listen-metrics-urls=http://{NODE_ADDRESS}:2381",
                "--log-level=warn",
            ),
            health=f"http://{NODE_ADDRESS}:2381/health",
        ),
        Component(
            API_SERVER,
            (
                f"{kubernetes}/kube-apiserver",
                f"--etcd-servers={ETCD}",
                f"--advertise-address={NODE_ADDRESS}",
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
            health=f"https://{NODE_ADDRESS}:6443/readyz",
        ),
        Component(
            "kube-controller-manager",
            (
                f"{kubernetes}/kube-controller-manager",
                *_client_of_api_server("kube-controller-manager"),
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--root-ca-file={pki.certificate('ca')}",
                f"--service-account-private-key-file={pki.FOLDER}/sa.key",
                f"--cluster-signing-cert-file={pki.certificate('ca')}",
                f"--cluster-signing-key-file={pki.key('ca')}",
                f"--flex-volume-plugin-dir={STATE}/flexvolume",
                "--profiling=false",
            ),
            health=f"https://{NODE_ADDRESS}:10257/healthz",
        ),
        Component(
            "kube-scheduler",
            (
                f"{kubernetes}/kube-scheduler",
                *_client_of_api_server("kube-scheduler"),
                "--leader-elect=false",
                "--profiling=false",
            ),
            health=f"https://{NODE_ADDRESS}:10259/healthz",
        ),
        Component(
            "kubelet",
            (
                f"{kubernetes}/kubelet",
                f"--config={ETC}/kubelet.json",
                f"--kubeconfig={pki.kubeconfig('kubelet')}",
                f"--hostname-override={NAME}",
                f"--node-ip={NODE_ADDRESS}",
                f"--root-dir={KUBELET}",
            ),
            (ETC / "kubelet.json",),
            health=f"http://{NODE_ADDRESS}:10248/healthz",
        ),
        Component(
            "kube-proxy",
            (f"{kubernetes}/kube-proxy", f"--config={ETC}/kube-proxy.json"),
            (ETC / "kube-proxy.json",),
            health=f"http://{NODE_ADDRESS}:10256/healthz",
        ),
        Component(
            "coredns",
            (f"{binaries.COREDNS.folder}/coredns", "-conf", f"{ETC}/Corefile"),
            (ETC / "Corefile",),
            health=f"http://{NODE_ADDRESS}:8181/ready",
        ),
        Component(
            "local-path-provisioner",
            (
                f"{binaries.LOCAL_PATH_PROVISIONER.folder}/local-path-provisioner",
                "start",
                f"--config={ETC}/local-path.json",
                f"--kubeconfig={pki.kubeconfig('local-path-provisioner')}",
                f"--helper-pod-file={ETC}/helper-pod.json",
                f"--helper-image={HELPER_IMAGE}",
                f"--namespace={STORAGE_NAMESPACE}",
                "--configmap-name=local-path-config",
                "--service-account-name=default",
            ),
            (ETC / "local-path.json", ETC / "helper-pod.json"),
        ),
    ]


def configure() -> None:
    """Writes the files that the components read."""
    in_state = [STATE / folder.relative_to("/") for folder in (Path("/var/log"), *MOUNT_POINTS)]
    for folder in (ETC / "certs.d" / REGISTRY, ETC / "cni", *MOUNT_POINTS, *in_state):
        folder.mkdir(parents=True, exist_ok=True)
    etcd = STATE / "etcd"
    etcd.mkdir(mode=0o700, exist_ok=True)
    for name, content in configuration().items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        file = ETC / name
        # Untouched unless it changes: kube-proxy ends when its file is written.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def configuration() -> dict[str, str | dict[str, Any]]:
    """File below :data:`ETC` -> what is in it."""
    plain = f"http://{REGISTRY}"
    return {
        "registry.json": {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(CACHE / "registry")}, "delete": {"enabled": True}},
            "http": {"addr": REGISTRY},
        },
        f"certs.d/{REGISTRY}/hosts.toml": f'server = "{plain}"\n[host."{plain}"]\ncapabilities = ["pull", "resolve"]\n',
        "containerd.toml": _containerd(),
        "cni/10-pods.conflist": _pod_network(),
        "kubelet.json": _kubelet(),
        "kube-proxy.json": _kube_proxy(),
        "Corefile": _corefile(),
        "local-path.json": {"sharedFileSystemPath": str(VOLUMES)},
        "helper-pod.json": _helper_pod(),
    }


def _internet(pasta: str) -> tuple[str, ...]:
    # It relays connections of the node, as this machine's own: neither its firewall nor its routing has a part in it.
    # Nothing comes in this way, and nothing on the machine's loopback can be reached.
    return (
        pasta,
        *("--foreground", "--stderr", "--quiet", "--runas=0", "--ipv4-only"),
        *("--netns", NETWORK, "--config-net", "--ns-ifname=internet"),
        *(f"--address={INTERNET_ADDRESS}", "--netmask=24", f"--gateway={GATEWAY_ADDRESS}"),
        *(f"--dns-forward={NAMESERVER_ADDRESS}", "--no-map-gw"),
        *("--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none"),
    )


def _client_of_api_server(name: str) -> list[str]:
    return [
        f"--kubeconfig={pki.kubeconfig(name)}",
        f"--authentication-kubeconfig={pki.kubeconfig(name)}",
        f"--authorization-kubeconfig={pki.kubeconfig(name)}",
        f"--bind-address={NODE_ADDRESS}",
    ]


def _containerd() -> str:
    return f"""\
version = 2
root = "{STATE}/containerd"
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
conf_dir = "{ETC}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{ETC}/certs.d"
"""


def _pod_network() -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(PODS)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{STATE}/pod-addresses",
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _kubelet() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate("kubelet-server")),
        "tlsPrivateKeyFile": str(pki.key("kubelet-server")),
        "healthzBindAddress": str(NODE_ADDRESS),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        # The machine may still have cgroups of version 1, and swap. It has its kernel parameters as it wants them:
        # node-init.sh keeps them from being written, and this gate has the kubelet live with that.
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "clusterDNS": [str(NODE_ADDRESS)],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": "",
        "maxPods": MAX_PODS,
        # The disk is the machine's, and its owner looks after it.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "podLogsDir": str(STATE / "pod-logs"),
        "volumePluginDir": str(STATE / "flexvolume"),
    }


def _kube_proxy() -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(pki.kubeconfig("kube-proxy"))},
        "hostnameOverride": NAME,
        "mode": "iptables",
        "clusterCIDR": str(PODS),
        "healthzBindAddress": f"{NODE_ADDRESS}:10256",
        "metricsBindAddress": f"{NODE_ADDRESS}:10249",
        # Zero: the sizes and times of the machine's connection tracking stay as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _corefile() -> str:
    return f"""\
. {{
  bind {NODE_ADDRESS}
  errors
  ready {NODE_ADDRESS}:8181
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
    kubeconfig {pki.kubeconfig("coredns")}
    pods insecure
    ttl 5
  }}
  forward . {NAMESERVER_ADDRESS}
  cache 5
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
