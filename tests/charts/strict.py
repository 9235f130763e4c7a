"""YAML as strict readers have it: no key twice, and what a plain scalar means under YAML 1.1 and under YAML 1.2."""

import re
from typing import Any, ClassVar

import yaml


class _NoKeyTwice(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} twice", node.start_mark)
        return super().construct_mapping(node, deep)


class Yaml11(_NoKeyTwice):
    """As PyYAML reads, and Go's readers, for whom 1e3 is a number, too."""


class Yaml12(_NoKeyTwice):
    """The core schema of YAML 1.2, in which `on` is text and 0o17 a number."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
Yaml11.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^({_FLOAT})$"), list("-+.0123456789"))
for tag, pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": _FLOAT,
}.items():
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^({pattern})$"), None)


def read(text: str, loader: type[yaml.SafeLoader]) -> list[Any]:
    """The documents of a text; what is no text there is told by its type and spelling alone, whatever its worth."""

    def plain(node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            loader("").construct_mapping(node)
            return {plain(key): plain(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [plain(item) for item in node.value]
        return node.value if node.tag == "tag:yaml.org,2002:str" else (node.tag.rpartition(":")[2], node.value)

    return [plain(node) for node in yaml.compose_all(text, loader) if node is not None]
