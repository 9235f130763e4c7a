"""Erasing a user everywhere: the actor first, whose last turn says what is late; then a line that nothing late crosses;
then all that is kept here. Done again after a failure, it goes on where it ended."""

from typing import Any

from agent_memory_service.dead_letters import DeadLetters
from agent_memory_service.memories import Memories
from agent_memory_service.sessions import Sessions
from agent_memory_service.summaries import Summaries
from agent_memory_service.transcripts import Transcripts
from agent_memory_service.users import Users


class Erasure:
    """Erases users."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        users: Users,
        memories: Memories,
        transcripts: Transcripts,
        summaries: Summaries,
        dead_letters: DeadLetters,
    ) -> None:
        self._sessions = sessions
        self._users = users
        self._memories = memories
        self._transcripts = transcripts
        self._summaries = summaries
        self._dead_letters = dead_letters

    async def erase(self, user_id: str) -> dict[str, Any]:
        """Erases a user; what was removed, by kind. Where it is done already, nothing.

        Raises:
            DaprError, DaprUnavailable, Contended, LaterVersion, ValidationError: it could not finish. Done again it
                goes on.
        """
        erased = await self._sessions.erase(user_id)
        await self._users.bury(user_id, erased.sequence)
        was_due = await self._summaries.forget(user_id)
        had_memory = await self._memories.erase(user_id)
        turns = 0

        async def stays(session_id: str) -> bool:
            nonlocal turns
            removed, later = await self._transcripts.erase(session_id, user_id, erased.sequence)
            turns += removed
            return later

        sessions = await self._users.erase_sessions(user_id, stays)
        return {
            "actor": erased.removed,
            "memories": int(had_memory),
            "sessions": sessions,
            "turns": turns,
            "due_summaries": int(was_due),
            "dead_letters": await self._dead_letters.erase(user_id, erased.sequence),
        }
