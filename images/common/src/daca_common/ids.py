"""User and session ids, checked before they become state keys, actor ids or paths.

An id has 1 to 128 characters: ASCII letters, digits and ``. _ - @ +``, the first of them a letter or a digit. That
keeps out what means something to the places an id travels through: ``/``, ``.`` and ``..`` (paths), ``|`` (Dapr joins
state keys with ``||``), spaces and control characters (logs).
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, Strict
from pydantic_core import PydanticCustomError

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"

_PATTERN = re.compile(ID_PATTERN[:-1] + r"\Z")


def _check(value: str) -> str:
    if not _PATTERN.match(value):
        raise PydanticCustomError(
            "id", "1 to 128 characters: letters, digits and . _ - @ +, the first of them a letter or a digit"
        )
    return value


Id = Annotated[str, Strict(), AfterValidator(_check), Field(json_schema_extra={"pattern": ID_PATTERN})]
"""A user id, session id or turn id; anything else is a 422 that names the field."""
