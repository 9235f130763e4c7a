"""The user classes: each is found by what it is, and told of."""

import ast
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest
from actor_load import users
from actor_load.users.calls import ActorUser
from actor_load.users.turns import ChatUser
from locust import User

LOAD_TESTS = Path(__file__).parents[1]
PAGE = (LOAD_TESTS.parent / "docs" / "load-testing.md").read_text()
CLASSES = {
    name: found
    for module in pkgutil.iter_modules(users.__path__)
    for name, found in inspect.getmembers(import_module(f"{users.__name__}.{module.name}"), inspect.isclass)
    if issubclass(found, User) and not found.abstract and found.__module__.startswith(users.__name__)
}
"""All that Locust can run."""


def test_the_locustfile_has_all_of_them():
    tree = ast.parse((LOAD_TESTS / "locustfile.py").read_text())
    (listed,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    assert set(ast.literal_eval(listed)) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_each_is_told_with_what_it_reaches(name):
    (reaches,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|", PAGE, re.MULTILINE)
    assert issubclass(CLASSES[name], ChatUser) is ("`--host`" in reaches)
    assert issubclass(CLASSES[name], ActorUser) is ("a sidecar" in reaches)
