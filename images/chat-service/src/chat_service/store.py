"""Where documents are kept: Dapr's actor state over HTTP, fenced by ETag.

Dapr does not stop an old activation from writing. Its HTTP API honours an ETag on a state transaction (its gRPC and the
SDK do not), and on Redis that is a count of the writes to the key, which the document carries as ``rev``. So two
activations of one actor can both try, and one of them is refused.
"""

from daca_common.dapr import CREATE, DaprClient

from chat_service.document import Document

ACTOR_TYPE = "UserSessionActor"


class DocumentStore:
    """Reads and writes the document of an actor that is active in this process."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def load(self, user_id: str) -> Document:
        """The stored document; an empty one for a new user.

        Raises:
            DaprError, DaprUnavailable: it could not be read.
        """
        return Document.load(await self._dapr.get_actor_state(ACTOR_TYPE, user_id, key(user_id)))

    async def save(self, user_id: str, document: Document) -> None:
        """Writes ``document`` if the stored one still is its predecessor (``rev`` one lower).

        Raises:
            DaprError, DaprUnavailable: refused or unknown. Dapr tells a mismatch from no other error: load, then judge.
        """
        predecessor = document.rev - 1
        etag = str(predecessor) if predecessor else CREATE
        await self._dapr.put_actor_state(ACTOR_TYPE, user_id, key(user_id), document.dump(), etag)


def key(user_id: str) -> str:
    """The state key of a user's document."""
    return f"history-{user_id}"
