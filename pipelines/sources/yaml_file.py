"""A YAML file as plain texts, lists and mappings, with the place of each in the file.

Every scalar stays the text that it is: what `no`, `1.10` or `12:30` means is for the model to say that reads them, not
for YAML to guess. Anchors, tags and deep nesting have no use in a mapping, and are refused: with them a few lines can
stand for gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from pipelines.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 1 << 18
_DEEPEST = 20
_SHOWN = 60

Value = str | list["Value"] | dict[str, "Value"]
Path_ = tuple[str | int, ...]


@dataclass(slots=True)
class YamlFile:
    """What a file says, and where."""

    path: Path
    content: dict[str, Value] = field(default_factory=dict)
    places: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    """Keys and indices on the way to a value → line and column, counted from 1."""

    def place(self, path: Path_) -> tuple[int, int]:
        """Return line and column of a value, or of the innermost one around it that is there."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def where(self, path: Path_) -> str:
        """Return 'my.yaml, line 3, column 5' for a value."""
        line, column = self.place(path)
        return f"{self.path.name}, line {line}, column {column}"


def read_yaml(path: Path) -> YamlFile:
    """Read a file whose top is a mapping.

    Raises:
        SourceError: it is no such file; the message says in which line.
    """
    text = _text(path)
    file = YamlFile(path)
    try:
        _refuse_tricks(path, text)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        msg = f"{path.name}{where}: expected YAML, received {error.problem or error.context}; mend it"
        raise SourceError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path.name}: expected YAML, received {' '.join(str(error).split())}; mend it"
        raise SourceError(msg) from error
    if not isinstance(node, yaml.MappingNode):
        received = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a text"
        msg = f"{path.name}: expected keys and values, such as 'name: My shop', received {received}"
        raise SourceError(msg)
    content = _value(node, (), file)
    assert isinstance(content, dict)  # noqa: S101 - a mapping node is read as one
    file.content = content
    return file


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"mapping {path}: expected a YAML file, it cannot be read ({error.strerror}); check the path"
        raise SourceError(msg) from error
    if len(data) > _MOST_BYTES:
        msg = f"{path}: expected a mapping of at most {_MOST_BYTES:,} bytes, received {len(data):,}; is it the data?"
        raise SourceError(msg)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: expected UTF-8 text, received other bytes at position {error.start}; save it as UTF-8"
        raise SourceError(msg) from error


def _refuse_tricks(path: Path, text: str) -> None:
    """Refuse, before anything is built of it, what a mapping does not need and an attacker does."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        mark = event.start_mark
        where = f"{path.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else path.name
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            msg = f"{where}: expected plain values, received an anchor or alias; write the value out, or in quotes"
            raise SourceError(msg)
        if tag := getattr(event, "tag", None):
            msg = f"{where}: expected plain values, received the tag {tag!r}; leave it out, or write it in quotes"
            raise SourceError(msg)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            msg = f"{where}: expected at most {_DEEPEST} levels of nesting, received more"
            raise SourceError(msg)


def _value(node: yaml.Node, path: Path_, file: YamlFile) -> Value:
    file.places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, (*path, index), file) for index, each in enumerate(node.value)]
    return {name: _value(each, (*path, name), file) for name, each in _entries(node, file)}


def _entries(node: yaml.Node, file: YamlFile) -> Iterator[tuple[str, yaml.Node]]:
    """Yield a mapping's keys and values; SourceError for a key that is no text, or occurs twice."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        where = f"{file.path.name}, line {key.start_mark.line + 1}, column {key.start_mark.column + 1}"
        if not isinstance(key, yaml.ScalarNode):
            msg = f"{where}: expected a name before the colon, received a list or a mapping; put it in quotes"
            raise SourceError(msg)
        if key.value in seen:
            shown = key.value[:_SHOWN]
            first = seen[key.value]
            msg = f"{where}: expected each key once, received {shown!r} again (first in line {first}); remove one"
            raise SourceError(msg)
        seen[key.value] = key.start_mark.line + 1
        yield key.value, value
