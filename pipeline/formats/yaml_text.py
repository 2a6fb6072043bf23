"""YAML as studies and layouts are written in it."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.formats.errors import UserError


def read_yaml(path: Path) -> object:
    """The value of a YAML file.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It cannot be read, is no YAML, or has a key twice in one mapping.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        msg = f"{path}: cannot be read as YAML ({' '.join(str(error).split())})"
        raise UserError(msg) from None


def load_yaml(text: str) -> object:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: It is no YAML, or has a key twice in one mapping.
    """
    value: object = yaml.load(text, _UniqueKeys)  # noqa: S506 - a safe loader
    return value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML has the last one win, and the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
