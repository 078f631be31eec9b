"""YAML whose mappings name each key once: PyYAML would keep the last one and lose the others."""

from collections.abc import Iterator
from typing import Any, Final

import yaml

_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE: Final = "tag:yaml.org,2002:merge"


class InvalidYaml(Exception):
    """The content is not YAML, or names a key twice; the message has the line."""


def read_yaml(content: bytes) -> Any:
    """The content's only document as plain data. Raises `InvalidYaml`."""
    try:
        loader = _Loader(content)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            for path, key, first in _repeated(root):
                raise InvalidYaml(
                    f"{path} at line {key.start_mark.line + 1}: the key is already at line"
                    f" {first.start_mark.line + 1}"
                )
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise InvalidYaml(f"not YAML{where}") from error


def _repeated(root: yaml.Node) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Keys that stand in their mapping before: dotted path, the key, the first one of that name."""
    waiting, seen = [("", root)], set()
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{path}.{index}", item) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            name = f"{path}.{key.value}".lstrip(".")
            waiting.append((name, value))
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            same = first.setdefault((key.tag, key.value), key)
            if same is not key:
                yield name, key, same
