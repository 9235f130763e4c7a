"""Keys and certificates: one authority, and a certificate for each party that speaks to the API server."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from cluster.bare.layout import API_SERVER, NAME, NODE_ADDRESS, SERVICES, STATE
from cluster.shell import run

FOLDER: Final = STATE / "pki"
DAYS: Final = 3650

# Without a configuration of its own, openssl adds the extensions of an authority to every certificate.
_OPENSSL: Final = "[req]\ndistinguished_name = name\n[name]\n"
_CURVE: Final = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
_API_SERVER_NAMES: Final = (
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,"
    f"DNS:localhost,IP:127.0.0.1,IP:{NODE_ADDRESS},IP:{SERVICES[1]}"
)


class Party(NamedTuple):
    """Who a certificate is for."""

    name: str
    subject: str
    """What RBAC knows the party by: CN is the user, O the group."""
    server_names: str = ""
    """For a server: what its clients may call it."""


SERVERS: Final = (
    Party("kube-apiserver", "/CN=kube-apiserver", _API_SERVER_NAMES),
    Party("kubelet-server", f"/CN={NAME}", f"DNS:{NAME},IP:{NODE_ADDRESS}"),
)
CLIENTS: Final = (
    Party("admin", "/O=system:masters/CN=admin"),
    Party("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Party("kubelet", f"/O=system:nodes/CN=system:node:{NAME}"),
    Party("kube-controller-manager", "/CN=system:kube-controller-manager"),
    Party("kube-scheduler", "/CN=system:kube-scheduler"),
    Party("kube-proxy", "/CN=system:kube-proxy"),
    Party("coredns", "/CN=system:coredns"),
    Party("local-path-provisioner", "/CN=system:local-path-provisioner"),
)


def certificate(name: str) -> Path:
    """The certificate of a party."""
    return FOLDER / f"{name}.crt"


def key(name: str) -> Path:
    """The key of a party."""
    return FOLDER / f"{name}.key"


def kubeconfig(name: str) -> Path:
    """The kubeconfig of a client."""
    return FOLDER / f"{name}.conf"


def make() -> None:
    """Makes all keys, certificates and kubeconfigs, unless they are there."""
    if FOLDER.exists():
        return
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        folder = Path(scratch) / "pki"
        folder.mkdir(mode=0o700)
        _make(folder)
        folder.rename(FOLDER)


def _make(folder: Path) -> None:
    configuration = folder / "openssl.cnf"
    configuration.write_text(_OPENSSL)
    request: list[str | Path] = ["openssl", "req", "-x509", "-config", configuration, "-days", str(DAYS)]
    request += ["-newkey", "ec", *_CURVE, "-noenc"]
    authority = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,digitalSignature"]
    _issue(request, folder / "ca", f"/CN={NAME}", authority)
    request += ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"]
    for party in (*SERVERS, *CLIENTS):
        use = "serverAuth" if party.server_names else "clientAuth"
        extensions = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", f"extendedKeyUsage={use}"]
        if party.server_names:
            extensions.append(f"subjectAltName={party.server_names}")
        _issue(request, folder / party.name, party.subject, extensions)
    run(["openssl", "genpkey", "-algorithm", "EC", *_CURVE, "-out", folder / "sa.key"])
    run(["openssl", "pkey", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])
    for party in CLIENTS:
        (folder / f"{party.name}.conf").write_text(_kubeconfig(folder, party.name))


def _issue(request: list[str | Path], stem: Path, subject: str, extensions: list[str]) -> None:
    added = [part for extension in extensions for part in ("-addext", extension)]
    run([*request, "-subj", subject, *added, "-keyout", f"{stem}.key", "-out", f"{stem}.crt"])


def _kubeconfig(folder: Path, name: str) -> str:
    def data(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": API_SERVER, "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": name}}],
        "current-context": NAME,
    }
    return json.dumps(content, indent=2) + "\n"
