"""Reads a YAML file of settings into a dict; faults of its form are named by line, keys given twice among them."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Also gathers the keys that a mapping has twice, which PyYAML would let the last win."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                self.repeated.append(f"line {key_node.start_mark.line + 1}: {key} is there twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> tuple[dict[Any, Any], list[str]]:
    """The file's top mapping and what is wrong with its form; no file that a user could have written makes it raise."""
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"{file}: cannot be read: {error.strerror or error}; give the path of a YAML file"]
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        return {}, [f"{file}: is not UTF-8 text: {error}"]
    try:
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return {}, [f"{file}:{where} is not YAML: {error.problem}"]
    finally:
        loader.dispose()
    problems = [f"{file}: {fault}" for fault in loader.repeated]
    if content is None:
        return {}, problems
    if not isinstance(content, dict):
        return {}, [*problems, f"{file}: must hold sections such as 'agent:', not {type(content).__name__}"]
    return content, problems
