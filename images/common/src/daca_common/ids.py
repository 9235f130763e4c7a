"""User and session ids, checked before they become state keys, actor ids or paths.

An id has 1 to 128 characters: ASCII letters, digits and ``. _ - @ +``, the first of them a letter or a digit. That
keeps out what means something to the places an id travels through: ``/``, ``.`` and ``..`` (paths), ``|`` (Dapr joins state
keys with ``||``), spaces and control characters (logs).
"""

from typing import Annotated, Final

from pydantic import StringConstraints

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN, strict=True)]
"""A user id, session id or turn id; anything else is a 422 that names the field."""
