"""Ids: what may become a key, an actor id or a path."""

import pytest
from daca_common.ids import Id
from pydantic import TypeAdapter, ValidationError

ADAPTER: TypeAdapter[str] = TypeAdapter(Id)


@pytest.mark.parametrize(
    "value", ["a", "7", "a" * 128, "junaid@example.com", "a.b_c-d+e", "0f8fad5b-d9cb-469f-a165-70867728950e"]
)
def test_an_id_in_the_documented_set_is_taken(value: str) -> None:
    assert ADAPTER.validate_python(value) == value


REFUSED = [
    *("", " ", ".", "..", "a/b", "a\\b", "a|b", "a||b", "a b", "a\n", "\na", "a\x00", "é", "\uff41", "a%2F", "a" * 129),
    *("-a", "_a", "@a", "+a", "a:b", "a*", "a?", "a#"),
    *(7, None, b"a", ["a"]),
]


@pytest.mark.parametrize("value", REFUSED)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(value)
