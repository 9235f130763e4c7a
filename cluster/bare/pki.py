"""Keys and certificates: one authority, and a certificate for each party that speaks to the API server.

Those of a node are in a folder of its own, so that nodes can come and go.
"""

import base64
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cluster.bare.layout import API_SERVER, FIRST, NAME, SERVICES, STATE, Node
from cluster.shell import run

FOLDER: Final = STATE / "pki"
DAYS: Final = 3650

# Without a configuration of its own, openssl adds the extensions of an authority to every certificate.
_OPENSSL: Final = "[req]\ndistinguished_name = name\n[name]\n"
_CURVE: Final = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
_API_SERVER_NAMES: Final = (
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,"
    f"DNS:localhost,IP:127.0.0.1,IP:{FIRST.address},IP:{SERVICES[1]}"
)


class Party(NamedTuple):
    """Who a certificate is for."""

    name: str
    subject: str
    """What RBAC knows the party by: CN is the user, O the group."""
    server_names: str = ""
    """For a server: what its clients may call it."""


PARTIES: Final = (
    Party("kube-apiserver", "/CN=kube-apiserver", _API_SERVER_NAMES),
    Party("admin", "/O=system:masters/CN=admin"),
    Party("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Party("kube-controller-manager", "/CN=system:kube-controller-manager"),
    Party("kube-scheduler", "/CN=system:kube-scheduler"),
    Party("kube-proxy", "/CN=system:kube-proxy"),
    Party("coredns", "/CN=system:coredns"),
    Party("local-path-provisioner", "/CN=system:local-path-provisioner"),
)


def node_parties(node: Node) -> tuple[Party, ...]:
    """The parties that every node has of its own."""
    return (
        Party("kubelet", f"/O=system:nodes/CN=system:node:{node.name}"),
        Party("kubelet-server", f"/CN={node.name}", f"DNS:{node.name},IP:{node.address}"),
    )


def certificate(name: str, folder: Path = FOLDER) -> Path:
    """The certificate of a party; ``folder`` is the node's for one of :func:`node_parties`."""
    return folder / f"{name}.crt"


def key(name: str, folder: Path = FOLDER) -> Path:
    """The key of a party."""
    return folder / f"{name}.key"


def kubeconfig(name: str, folder: Path = FOLDER) -> Path:
    """The kubeconfig of a party that is a client."""
    return folder / f"{name}.conf"


def make(nodes: Iterable[Node]) -> None:
    """Makes all keys, certificates and kubeconfigs that are missing: the cluster's, and those of ``nodes``."""
    if not FOLDER.exists():
        with _whole(FOLDER) as folder:
            make_authority(folder)
            issue(folder, PARTIES, folder)
    for node in nodes:
        if not node.pki.exists():
            with _whole(node.pki) as folder:
                issue(folder, node_parties(node), FOLDER)


def make_authority(folder: Path) -> None:
    """Makes, in ``folder``, the authority of a cluster, and the keys that its service accounts are signed with."""
    (folder / "openssl.cnf").write_text(_OPENSSL)
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,digitalSignature"]
    _certify(folder, folder / "ca", f"/CN={NAME}", extensions)
    run(["openssl", "genpkey", "-algorithm", "EC", *_CURVE, "-out", folder / "sa.key"])
    run(["openssl", "pkey", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])


def issue(folder: Path, parties: Iterable[Party], authority: Path) -> None:
    """Makes, in ``folder``, what each party needs; ``authority`` is the folder of the authority that signs."""
    signed: list[str | Path] = ["-CA", authority / "ca.crt", "-CAkey", authority / "ca.key"]
    for party in parties:
        use = "serverAuth" if party.server_names else "clientAuth"
        extensions = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", f"extendedKeyUsage={use}"]
        if party.server_names:
            extensions.append(f"subjectAltName={party.server_names}")
        _certify(authority, folder / party.name, party.subject, extensions, *signed)
        if not party.server_names:
            (folder / f"{party.name}.conf").write_text(_kubeconfig(folder, party.name, authority))


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which becomes ``folder`` when the block is done: it is never there half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        filled = Path(scratch) / folder.name
        filled.mkdir(mode=0o700)
        yield filled
        filled.rename(folder)


def _certify(authority: Path, stem: Path, subject: str, extensions: list[str], *signed: str | Path) -> None:
    request: list[str | Path] = ["openssl", "req", "-x509", "-config", authority / "openssl.cnf", "-days", str(DAYS)]
    request += ["-newkey", "ec", *_CURVE, "-noenc", *signed, "-subj", subject]
    request += [part for extension in extensions for part in ("-addext", extension)]
    run([*request, "-keyout", f"{stem}.key", "-out", f"{stem}.crt"])


def _kubeconfig(folder: Path, name: str, authority: Path) -> str:
    def data(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {"server": API_SERVER, "certificate-authority-data": data(certificate("ca", authority))}
    user = {
        "client-certificate-data": data(certificate(name, folder)),
        "client-key-data": data(key(name, folder)),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": name}}],
        "current-context": NAME,
    }
    return json.dumps(content, indent=2) + "\n"
