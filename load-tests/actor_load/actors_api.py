"""Dapr's API of actors, behind a sidecar's address: https://docs.dapr.io/reference/api/actors_api/"""

from urllib.parse import quote


def method_path(actor_type: str, actor_id: str, method: str) -> str:
    """The path of a method of an actor."""
    return f"/v1.0/actors/{quote(actor_type, safe='')}/{quote(actor_id, safe='')}/method/{method}"
