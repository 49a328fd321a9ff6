"""The YAML of whoever brings their own events: every fault with its line, key, expected, received and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.columns import Curve, Encoding
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import Kind, Positive, Schema, SchemaError, ValueRange
from pipelines.errors import SourceError
from pipelines.sources.mapping_file import find_mapping, read_mapping, shipped
from tests.shop_log import MAPPING, derived_mapping

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "shop.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_schema_follows_from_a_mapping(tmp_path: Path) -> None:
    mapping, schema = read_mapping(write(tmp_path, MAPPING))
    assert mapping.name == "Made-up shop"
    assert schema.counted_types == ("view", "purchase")
    assert schema.value == ValueRange(1.0, 100.0, 1.0)
    assert schema.positive == Positive(("purchase",), 1.0)
    assert schema.is_implicit
    kinds = [(each.name, each.kind) for each in schema.item_attributes]
    assert kinds == [
        ("price", Kind.NUMERIC),
        ("category", Kind.CATEGORICAL),
        ("tags", Kind.MULTI_VALUED),
        ("about", Kind.TEXT),
    ]


def test_how_models_read_a_number_is_of_the_schema_and_changes_no_row(tmp_path: Path) -> None:
    plain, schema = read_mapping(write(tmp_path, MAPPING))
    told = MAPPING.replace("step: 0.01", "step: 0.01, encoding: quantiles, buckets: 8, curve: log")
    mapping, other = read_mapping(write(tmp_path, told))
    profile = declared(other).item_profile
    assert profile
    (price,) = (column for column in profile.features if column.name == "item_price")
    assert (price.encoding, price.buckets, price.curve) == (Encoding.QUANTILES, 8, Curve.LOG)
    assert Schema.from_json(other.to_json()) == other != schema
    assert mapping.meaning == plain.meaning, "a stored value is the same"
    silent = {"encoding", "curve", "buckets"}
    assert all(not silent & each.keys() for each in schema.to_json()["item_attributes"]), "hashed as before"
    assert not silent & plain.meaning["items"]["attributes"][0].keys(), "a part still fits into an earlier lake"


def test_how_many_liked_items_are_kept_is_of_the_schema_and_changes_no_row(tmp_path: Path) -> None:
    plain, schema = read_mapping(write(tmp_path, MAPPING))
    assert schema.liked_items == 1_000
    assert "liked_items" not in schema.to_json(), "hashed as before, and what lacks it reads as the default"
    assert Schema.from_json(schema.to_json()) == schema
    mapping, other = read_mapping(write(tmp_path, f"{MAPPING}liked_items: 50\n"))
    assert other.liked_items == 50
    assert Schema.from_json(other.to_json()) == other != schema
    assert mapping.meaning == plain.meaning, "a part still fits into the lake"
    groups, others = declared(schema), declared(other)
    assert groups.user_liked_items.view_name != others.user_liked_items.view_name
    assert groups.user_state.view_name != others.user_state.view_name
    assert groups.ranking.hash == others.ranking.hash


@pytest.mark.parametrize("number", ["0", "100001", "-5"])
def test_a_number_of_liked_items_out_of_range_is_told_with_its_place(tmp_path: Path, number: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_mapping(write(tmp_path, f"{MAPPING}liked_items: {number}\n"))
    line = MAPPING.count("\n") + 1
    for word in (
        f"shop.yaml, line {line}",
        "liked_items: expected a whole number from 1 to 100,000",
        f"received {number}",
    ):
        assert word in str(caught.value)
    assert "leave it out for 1,000" in str(caught.value)


@pytest.mark.parametrize("number", ["many", "10.5", "true", "[7]"])
def test_what_is_no_number_of_liked_items_is_told_with_its_place(tmp_path: Path, number: str) -> None:
    with pytest.raises(SourceError, match=r"liked_items: expected a valid integer, received"):
        read_mapping(write(tmp_path, f"{MAPPING}liked_items: {number}\n"))


@pytest.mark.parametrize("number", [0, 100_001, 7.5, "7", None, True])
def test_a_stored_number_of_liked_items_that_makes_no_sense_is_refused(tmp_path: Path, number: object) -> None:
    _, schema = read_mapping(write(tmp_path, MAPPING))
    with pytest.raises(SchemaError, match="liked_items: expected a whole number"):
        Schema.from_json(schema.to_json() | {"liked_items": number})


def test_the_shipped_mappings_make_sense() -> None:
    assert "online-retail" in shipped()
    for name in shipped():
        read_mapping(find_mapping(name))


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path) -> None:
    text = MAPPING.replace("look: view", "no: view, 1.10: view, 2024-01-01: view")
    mapping, _ = read_mapping(write(tmp_path, text))
    assert set(mapping.events.type.mapping or {}) == {"no", "1.10", "2024-01-01", "buy", "back"}


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("feedback: implicit", "feedback: both", ["line 2", "feedback", "'explicit' or 'implicit'", "'both'"]),
        ("  user: customer", "  usr: customer", ["events.user", "expected a value", "'usr'", "did you mean 'user'?"]),
        ("kind: numeric, step", "kind: numeric, sep", ["items.attributes.0.sep", "step", "received 'sep'"]),
        ("step: 0.01", "step: -1", ["line 22", "items.attributes.0.step", "greater than 0", "'-1'"]),
        ("step: 0.01", "step: cheap", ["valid number", "'cheap'"]),
        (
            "step: 0.01",
            "encoding: hashed",
            ["attributes.0.encoding: expected 'standard', 'min_max', 'robust' or"],
        ),
        ("step: 0.01", "encoding: quantiles", ["line 22, column 7: items.attributes.0", "buckets", "received 0"]),
        ("step: 0.01", "encoding: robust, buckets: 4", ["items.attributes.0", "quantiles", "4 for robust"]),
        ("step: 0.01", "encoding: quantiles, buckets: 1", ["items.attributes.0", "two or more", "received 1"]),
        ("step: 0.01", "buckets: 1", ["items.attributes.0", "quantiles", "1 for standard"]),
        ("step: 0.01", "encoding: quantiles, buckets: 9999", ["items.attributes.0.buckets", "1000", "9999"]),
        ("step: 0.01", "curve: cubic", ["items.attributes.0.curve", "'sqrt'", "'cubic'"]),
        ("kind: text", "kind: text, curve: log", ["items.attributes.3", "curve", "numeric", "text; remove it"]),
        ("kind: text", "kind: prose", ["items.attributes.3.kind", "'prose'", "'text'"]),
        ('separator: "|"', 'separator: ""', ["items.attributes.2.separator", "at least 1 character"]),
        ("name: price", "name: Price", ["line 22", "'Price'", "lower case"]),
        ("name: price", "name: title", ["line 22, column 7: items.attributes.0: ", "'title'", "rename it"]),
        ("name: category", "name: price", ["line 22, column 5: ", "item attributes", "different names", "price"]),
        ("name: category", "name: price", ["received ['price', 'price', 'tags', 'about']; rename one"]),
        ("reduce: most_common", "reduce: median", ["users.attributes.0", "median", "numeric", "most_common"]),
        ("back: return", "back: sent", ["line 13", "events.type.mapping.back", "view, purchase, return", "'sent'"]),
        (
            "event_types: purchase",
            "event_types: return",
            ["line 7, column 25: positive", "counted", "return", "declare"],
        ),
        ("maximum: 100", "maximum: 0", ["line 14, column 10: value", "minimum <= maximum", "1 and 0", "correct"]),
        ("maximum: 100", "maximum: 1e9", ["line 14, column 10: value", "1 to 1e+09", "a larger step"]),
        ("event_types: purchase", "event_types: purchase, min_value: 0", ["line 7, column 46: positive", "1 to 100"]),
        ("  view: {", "  View: {", ["line 4, column 9: event type 'View'", "lower case", "rename it"]),
        ("minimum: 1, ", "", ["events.value", "minimum and maximum", "add minimum"]),
        (
            "{column: pieces, minimum",
            "{column: pieces, constant: 2, minimum",
            ["exactly one of constant, column", "received both; say one"],
        ),
        ("missing: true}", "missing: true, below: 3}", ["line 16", "exactly one of", "'below', 'missing'"]),
        ("time: at", "time: {column: at, unit: h}", ["events.time.unit", "'ns'", "'h'"]),
        ("time: at", "time: {column: at, unit: s, zone: UTC}", ["events.time", "received both"]),
        ("time: at", 'time: {column: at, format: "%Q"}', ["line 12", "events.time.format", "strptime", "'%Q'"]),
        ("time: at", "time: {column: at, zone: Europe/Paname}", ["events.time.zone", "'Europe/Paname'"]),
        ("missing: true", 'matches: "(a"', ["events.skip.0.when.matches", "regular expression", "'(a'"]),
        ("missing: true", "below: nan", ["events.skip.0.when.below", "finite number", "'nan'"]),
        ("missing: true", "above: inf", ["events.skip.0.when.above", "finite number", "'inf'"]),
        ("maximum: 100", "maximum: inf", ["events.value.maximum", "finite number", "'inf'"]),
        ("event_types: purchase", "event_types: purchase, min_value: nan", ["positive.min_value", "finite number"]),
        ("reason: no customer", "reason: repeated", ["events.skip.0.reason", "another reason than 'repeated'"]),
        *(
            ("  user: customer", f"  csv: {{encoding: {name}}}\n  user: customer", ["events.csv.encoding", f"'{name}'"])
            for name in ("hex", "rot13", "idna", "klingon")
        ),
        *(
            ("  user: customer", f"  csv: {{{form}}}\n  user: customer", ["line 10", "events.csv", "ASCII"])
            for form in ("separator: \u00a7", "quote: \u201c", "separator: '\"'", 'quote: "\\n"')
        ),
        ("  id: sku\n", "", ["items", "files and id together", "received files alone; add id"]),
        ('"items*"', "[]", ["items", "files and id together", "received id alone; add files"]),
        ('"events*"', "[]", ["events.files", "at least 1 item"]),
        ("name: Made-up shop", "name: a\nname: b", ["line 2", "'name' again", "first in line 1"]),
        ("name: Made-up shop", "name: [a", ["line 2", "expected YAML"]),
        ("name: Made-up shop", "name: *shop", ["line 1", "anchor or alias"]),
        ("name: Made-up shop", "name: !!python/name:os.system x", ["line 1", "the tag"]),
        ("name: Made-up shop", "{a: 1}: b", ["line 1", "a name before the colon"]),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, was: str, becomes: str, words: list[str]) -> None:
    assert was in MAPPING
    with pytest.raises(SourceError) as caught:
        read_mapping(write(tmp_path, MAPPING.replace(was, becomes, 1)))
    for word in ("shop.yaml", "expected", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        ("{files: f.csv, user: a}", ["relations.other", "expected a value"]),
        ("{user: a, other: b}", ["relations.files", "expected a value"]),
        ("{files: f.csv, user: a, other: b, when: c}", ["relations.when", "since", "'when'"]),
        ("{files: f.csv, user: a, other: b, since: {column: c, zone: Mars}}", ["relations.since.zone", "'Mars'"]),
        ("{files: f.csv, user: a, other: b, since: {column: c, format: '%Q'}}", ["relations.since.format", "'%Q'"]),
    ],
)
def test_a_fault_of_the_relations_is_told_with_its_place(tmp_path: Path, relations: str, words: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        read_mapping(write(tmp_path, f"{MAPPING}relations: {relations}\n"))
    for word in ("shop.yaml, line 29", *words):
        assert word in str(caught.value)


def test_a_mapping_without_relations_means_what_it_always_meant(tmp_path: Path) -> None:
    """So that a part can still be merged into a lake that an earlier version has written."""
    mapping, schema = read_mapping(write(tmp_path, MAPPING))
    assert "relations" not in mapping.meaning
    assert "has_relations" not in schema.to_json()
    assert Schema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize(
    ("owner", "name", "kind", "taken"),
    [
        ("items", "event_count", "numeric", "item_event_count"),
        ("items", "value_mean", "numeric", "item_value_mean"),
        ("items", "first_event_time", "categorical", "item_first_event_time"),
        ("items", "popular_until", "numeric", "item_popular_until"),
        ("items", "trend", "numeric", "item_trend"),
        ("items", "event_count_7d", "numeric", "item_event_count_7d"),
        ("items", "recency", "numeric", "item_recency"),
        ("items", "session", "numeric", "state_session_count"),
        ("items", "item", "categorical", "item"),
        ("items", "id", "text", "item_id"),
        ("items", "item_event_count", "text", "item_event_count"),
        ("users", "id", "text", "user_id"),
        ("users", "session_count", "numeric", "user_session_count"),
        ("users", "top_tags", "multi_valued", "user_top_tags"),
        ("users", "tenure", "numeric", "user_tenure"),
        ("users", "recency", "numeric", "user_recency"),
        ("users", "seen_items", "categorical", "user_seen_items"),
        ("users", "price_mean", "numeric", "user_price_mean"),
    ],
)
def test_an_attribute_by_whose_name_something_else_is_called_is_told(
    tmp_path: Path, owner: str, name: str, kind: str, taken: str
) -> None:
    attribute = f"    - {{name: {name}, kind: {kind}{', separator: x' if kind == 'multi_valued' else ''}}}\n"
    text = derived_mapping().replace("users:\n", f"{attribute}users:\n") if owner == "items" else derived_mapping()
    text += attribute if owner == "users" else ""
    line = text[: text.index(attribute)].count("\n") + 1
    with pytest.raises(SourceError) as caught:
        read_mapping(write(tmp_path, text))
    for word in (f"shop.yaml, line {line}, column 14: {owner}.attributes.", f"received '{name}'", f"'{taken}' more"):
        assert word in str(caught.value)
    assert f"rename it, and say which column it is in with 'column: {name}'" in str(caught.value)


def test_attributes_of_items_and_users_that_would_share_a_vocabulary_are_told(tmp_path: Path) -> None:
    text = MAPPING.replace("name: category", "name: user_country, column: category")
    with pytest.raises(SourceError, match=r"users\.attributes\.0\.name: .*received 'country' .*'user_country' more"):
        read_mapping(write(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["received nothing"]),
        ("- a\n- b\n", ["keys and values", "a list"]),
        ("just a text", ["keys and values", "a text"]),
        (b"name: \xff", ["UTF-8", "position 6"]),
        (b"name: a\x00b", ["expected YAML"]),
        (b"customer,sku\n" * 50_000, ["at most 262,144 bytes", "is it the data?"]),
        ("[" * 100_000, ["20 levels of nesting"]),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
                for before, name in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            ["line 1", "anchor or alias"],
        ),
    ],
)
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        read_mapping(write(tmp_path, content))
    for word in ("shop.yaml", "expected", *words):
        assert word in str(caught.value)


def test_more_faults_than_fit_are_counted(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\.\.\. and 4 more"):
        read_mapping(write(tmp_path, "a: 1\nb: 1\nc: 1\nd: 1\n"))


def test_there_is_no_such_mapping(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.yaml: expected a YAML file, or one of online-retail"):
        find_mapping(str(tmp_path / "nowhere.yaml"))


def test_reduce_is_for_what_is_read_off_event_rows(tmp_path: Path) -> None:
    text = derived_mapping().replace("items:\n", "items:\n  files: items.csv\n  id: sku\n")
    with pytest.raises(SourceError, match=r"items: .*reduce only where attributes are read off.*'price', 'tags'"):
        read_mapping(write(tmp_path, text))
