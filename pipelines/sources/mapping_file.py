"""From a YAML file to a mapping that makes sense; every fault with its line, key, expected, received and remedy."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from pydantic import BaseModel, ValidationError

from feature_repo.contracts.schemas import SchemaError
from feature_repo.contracts.signatures import ranking
from pipelines.errors import SourceError
from pipelines.sources.mapping import Mapping
from pipelines.sources.yaml_file import YamlFile, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from feature_repo.contracts.schemas import Schema

_FOLDER = Path(__file__).parent
_SHOWN = 80
_FAULTS_SHOWN = 5
_IN_MAPPING = {
    "value": ("events", "value"),
    "item_attributes": ("items", "attributes"),
    "user_attributes": ("users", "attributes"),
}
"""Keys of a schema that a mapping has elsewhere."""


def shipped() -> dict[str, Path]:
    """Return the mappings that come with the project, by name."""
    return {path.stem.replace("_", "-"): path for path in sorted(_FOLDER.glob("*.yaml"))}


def find_mapping(name: str) -> Path:
    """Return the file of a mapping: one that comes with the project by its name, any other by its path.

    Raises:
        SourceError: there is none.
    """
    known = shipped()
    path = known.get(name) or Path(name).expanduser()
    if not path.is_file():
        msg = f"mapping {name}: expected a YAML file, or one of {', '.join(known)}, there is none; check the path"
        raise SourceError(msg)
    return path.absolute()


def read_mapping(path: Path) -> tuple[Mapping, Schema]:
    """Read and check a mapping and the schema that follows from it.

    Raises:
        SourceError: it makes no sense; the message has each fault with its place.
    """
    file = read_yaml(path)
    try:
        mapping = Mapping.model_validate(file.content)
    except ValidationError as error:
        details = sorted(error.errors(include_url=False), key=lambda detail: file.place(_loc(detail)))
        faults = [_fault(file, detail) for detail in details[:_FAULTS_SHOWN]]
        more = f"\n... and {len(details) - _FAULTS_SHOWN} more" if len(details) > _FAULTS_SHOWN else ""
        raise SourceError("\n".join(faults) + more) from error
    try:
        schema = mapping.schema()
    except SchemaError as error:
        loc = (*_IN_MAPPING.get(error.key[0], error.key[:1]), *error.key[1:]) if error.key else ()
        msg = f"{file.where(loc)}: {error}"
        raise SourceError(msg) from error
    _check_names(file, mapping, schema)
    _check_types(file, mapping)
    _check_expressions(file, mapping)
    return mapping, schema


def _fault(file: YamlFile, detail: ErrorDetails) -> str:
    """Say of one fault where it is, what was expected and what was received."""
    loc = _loc(detail)
    key = ".".join(map(str, loc))
    where, received = file.where(loc), _shown(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_at(loc[:-1])
            close = difflib.get_close_matches(str(loc[-1]), known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "remove it"
            return f"{where}: {key}: expected one of the keys {', '.join(known)}, received {loc[-1]!r}; {remedy}"
        case "missing":
            return f"{where}: {key}: expected a value, received none; add the key {loc[-1]!r}"
        case "literal_error" | "enum":
            return f"{where}: {key}: expected {context['expected']}, received {received}; correct it"
        case "value_error":
            return f"{where}: {key or 'the mapping'}: {context['error']}"
        case _:
            wanted = detail["msg"].removeprefix("Input should be ").partition(", unable to parse string as")[0]
            return f"{where}: {key}: expected {wanted}, received {received}; correct it"


def _loc(detail: ErrorDetails) -> tuple[int | str, ...]:
    return tuple(part for part in detail["loc"] if part != "[key]")


def _shown(received: object) -> str:
    text = repr(received)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model knows at a place."""
    model: Any = Mapping
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - whatever a field is annotated with
    """Return the model that an annotation is, or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(each) for each in getattr(annotation, "__args__", ()))
    return next((each for each in inner if each), None)


def _check_names(file: YamlFile, mapping: Mapping, schema: Schema) -> None:
    """Refuse an attribute by whose name two columns, features or vocabularies would have one: all are built to see."""
    for key, number, so_far in _attribute_by_attribute(schema):
        try:
            ranking(so_far)
        except ValueError as error:
            attribute = getattr(mapping, key).attributes[number]
            loc = (key, "attributes", number, "name")
            msg = (
                f"{file.where(loc)}: {'.'.join(map(str, loc))}: expected a name by which nothing else is called, "
                f"received {attribute.name!r} ({error}); rename it, and say which column it is in with 'column: "
                f"{attribute.source_column}'"
            )
            raise SourceError(msg) from error


def _attribute_by_attribute(schema: Schema) -> Iterator[tuple[str, int, Schema]]:
    """Yield key of the mapping, number, and the schema up to that attribute: those of items come first."""
    bare = replace(schema, item_attributes=(), user_attributes=())
    for number in range(len(schema.item_attributes)):
        yield "items", number, replace(bare, item_attributes=schema.item_attributes[: number + 1])
    for number in range(len(schema.user_attributes)):
        yield "users", number, replace(schema, user_attributes=schema.user_attributes[: number + 1])


def _check_types(file: YamlFile, mapping: Mapping) -> None:
    """Refuse event types that are used and not declared."""
    kind = mapping.events.type
    used: list[tuple[tuple[str | int, ...], str]] = []
    if kind.constant:
        used.append((("events", "type", "constant"), kind.constant))
    used += [(("events", "type", "mapping", text), name) for text, name in (kind.mapping or {}).items()]
    used += [(("events", "type", "cases", number, "type"), case.type) for number, case in enumerate(kind.cases)]
    if kind.otherwise:
        used.append((("events", "type", "otherwise"), kind.otherwise))
    for loc, name in used:
        if name not in mapping.event_types:
            declared = ", ".join(mapping.event_types)
            msg = (
                f"{file.where(loc)}: {'.'.join(map(str, loc))}: expected one of the event types {declared}, received "
                f"{name!r}; correct it, or declare it under event_types"
            )
            raise SourceError(msg)


def _check_expressions(file: YamlFile, mapping: Mapping) -> None:
    """Have regular expressions, time formats and zones read by the engine that will use them."""
    since = mapping.relations.since if mapping.relations else None
    times = {("events", "time"): mapping.events.time} | ({("relations", "since"): since} if since else {})
    tries: list[tuple[tuple[str | int, ...], str, str, list[str]]] = []
    for key, time in times.items():
        if time.format:
            tries.append(((*key, "format"), "a format as of strptime", _STRPTIME, [time.format]))
        tries.append(((*key, "zone"), "a time zone such as Europe/London", _ZONE, [time.zone]))
    tries += [
        (("events", *loc, "matches"), "a regular expression (RE2)", _REGEX, [when.matches])
        for loc, when in mapping.events.conditions()
        if when.matches
    ]
    with duckdb.connect() as database:
        for loc, expected, query, values in tries:
            try:
                database.execute(query, values).fetchall()
            except duckdb.Error as error:
                reason = " ".join(str(error).split("\n")[0].split())
                msg = (
                    f"{file.where(loc)}: {'.'.join(map(str, loc))}: expected {expected}, received {values[0]!r} "
                    f"({reason}); correct it"
                )
                raise SourceError(msg) from error


_STRPTIME = "SELECT try_strptime('x', $1)"
_ZONE = "SELECT timezone($1, TIMESTAMP '2000-01-01 00:00:00')"
_REGEX = "SELECT regexp_full_match('x', $1)"
