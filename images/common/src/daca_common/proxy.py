"""By which proxy a server is reached: what the environment says, as curl and most other programs read it.

``HTTPS_PROXY`` and ``HTTP_PROXY`` by the server's scheme, else ``ALL_PROXY``; ``NO_PROXY`` lists names, their endings,
addresses and ranges (``10.0.0.0/8``) that are reached directly. So is what only the cluster knows: names without a dot,
services (``ollama.models.svc``), and this very machine. Nothing that a sidecar is asked goes by a proxy.
"""

import ipaddress
import urllib.request
from typing import Final

from yarl import URL

SCHEMES: Final = ("http", "https", "socks5")


def proxy_for(url: str) -> str | None:
    """The proxy's URL for a server's; ``None`` where it is reached directly.

    Raises:
        ValueError: the environment names a proxy that is none; the message says which variable.
    """
    server = URL(url)
    proxies = urllib.request.getproxies_environment()
    named = next((name for name in (server.scheme, "all") if proxies.get(name)), None)
    if named is None or _direct(server.host or "", proxies.get("no", "")):
        return None
    told = proxies[named].strip().replace("socks5h://", "socks5://")  # either way it is the proxy that looks names up
    try:
        proxy = URL(told if "://" in told else f"http://{told}")
    except ValueError:
        proxy = URL()
    if proxy.scheme.lower() not in SCHEMES or not proxy.host:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{named.upper()}_PROXY is no proxy's address: host:port, or a URL with {schemes}")
    return str(proxy)


def _direct(host: str, exceptions: str) -> bool:
    host = host.rstrip(".").lower()
    listed = [item.strip().lower() for item in exceptions.split(",") if item.strip()]
    if "*" in listed:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        in_cluster = len(labels) == 1 or "svc" in labels[2:] or labels[-1] == "local"
        return in_cluster or any(f".{host}".endswith(f".{item.removeprefix('*').lstrip('.')}") for item in listed)
    return address.is_loopback or any(_holds(item, address) for item in listed)


def _holds(item: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(item.strip("[]"), strict=False)
    except ValueError:
        return False
