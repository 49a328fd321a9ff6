from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.signatures import Scope, ranking
from feature_repo.feast_redis import feature_field, timestamp_field
from serving.recommender.engine import Online
from serving.recommender.errors import RecommenderError, SnapshotError
from serving.recommender.ranking import ranking_inputs
from serving.recommender.release import Canary, RankingOff, RankingPlan, plan_ranking
from serving.recommender.settings import Settings, load_settings
from serving.recommender.snapshot import load_snapshot
from tests.movielens import FEATURES, ITEM_PROFILE, MOVIELENS, RANKING, RANKING_FEATURES, USER_ACTIVITY
from tests.recommender_world import (
    CUTOFF,
    ITEM_COUNT,
    World,
    catalogue_table,
    corrupt,
    snapshot_views,
    vectors_table,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(1998, 4, 23, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_a_snapshot_is_loaded_with_missing_values_filled(world: World) -> None:
    world.publish_snapshot()
    snapshot = load_snapshot(world.place)
    assert len(snapshot.catalogue) == ITEM_COUNT
    assert list(snapshot.vectors) == ["item2vec"]
    assert snapshot.catalogue.attributes[17]["release_year"] is None
    assert snapshot.catalogue.inputs["item_release_year"][17] == -1.0
    assert snapshot.catalogue.inputs["item_id"][3] == b"0003"
    assert snapshot.catalogue.inputs["item_genres"][3].tolist() == [b"Sci-Fi", b"", b""]
    for column in RANKING.input_columns:
        if column.name in snapshot.catalogue.inputs:
            shape = (ITEM_COUNT, column.length) if column.length else (ITEM_COUNT,)
            assert snapshot.catalogue.inputs[column.name].shape == shape


@pytest.mark.parametrize("name", ["item_id", "title", "item_event_count", "item_genres"])
def test_a_missing_column_is_named(world: World, name: str) -> None:
    world.publish_snapshot(catalogue_table().drop_columns([name]))
    with pytest.raises(SnapshotError, match=rf"{name}.*missing"):
        load_snapshot(world.place)


def test_a_column_of_another_type_is_named(world: World) -> None:
    years = [["x"] for _ in range(ITEM_COUNT)]
    world.publish_snapshot(replaced(catalogue_table(), "item_event_count", years))
    with pytest.raises(SnapshotError, match=r"item_event_count.*expected int64"):
        load_snapshot(world.place)


def test_lists_of_another_length_are_refused(world: World) -> None:
    genres = pa.array([["Drama"]] * ITEM_COUNT)
    world.publish_snapshot(replaced(catalogue_table(), "item_genres", genres))
    with pytest.raises(SnapshotError, match="expected lists of 3"):
        load_snapshot(world.place)


@pytest.mark.parametrize("ids", [["1"] * ITEM_COUNT, [None, *map(str, range(1, ITEM_COUNT))]])
def test_ids_that_are_missing_or_repeated_are_refused(world: World, ids: list[str | None]) -> None:
    world.publish_snapshot(replaced(catalogue_table(), "item_id", pa.array(ids, pa.string())))
    with pytest.raises(SnapshotError, match="distinct ids"):
        load_snapshot(world.place)


def test_an_empty_catalogue_is_refused(world: World) -> None:
    world.publish_snapshot(catalogue_table().slice(0, 0))
    with pytest.raises(SnapshotError, match="received 0 rows"):
        load_snapshot(world.place)


def test_a_catalogue_of_other_bytes_is_refused(world: World) -> None:
    world.publish_snapshot(catalogue_sha256="0" * 64)
    with pytest.raises(SnapshotError, match="expected SHA-256 0000"):
        load_snapshot(world.place)


def test_a_catalogue_that_is_gone_is_named(world: World) -> None:
    manifest = world.publish_snapshot()
    (world.place.root / manifest.catalogue.path).unlink()
    with pytest.raises(SnapshotError, match=r"catalogue\.parquet.*publish again"):
        load_snapshot(world.place)


def test_another_namespace_is_refused(world: World) -> None:
    world.publish_snapshot(namespace="other")
    with pytest.raises(SnapshotError, match="expected namespace tiny"):
        load_snapshot(world.place)


def test_a_snapshot_without_a_user_view_is_refused(world: World) -> None:
    world.publish_snapshot(views={USER_ACTIVITY.name: USER_ACTIVITY.view_name})
    with pytest.raises(SnapshotError, match="user_history"):
        load_snapshot(world.place)


def test_a_pointer_that_is_no_manifest_is_refused(world: World) -> None:
    corrupt(world.place.online_current)
    with pytest.raises(CorruptRecordError):
        load_snapshot(world.place)


@pytest.mark.parametrize("change", ["sha", "size", "nan", "gone"])
def test_broken_vectors_leave_a_snapshot_without_them(world: World, change: str) -> None:
    vectors = vectors_table()
    if change == "size":
        vectors = replaced(vectors, "embedding", pa.array([[1.0]] * ITEM_COUNT))
    if change == "nan":
        vectors = replaced(vectors, "embedding", pa.array([[float("nan")] * 32] * ITEM_COUNT))
    manifest = world.publish_snapshot(vectors=vectors)
    if change == "sha":
        manifest = world.publish_snapshot(vectors_sha256={"item2vec": "0" * 64})
    path = manifest.parts["item2vec"].path
    if change == "gone":
        (world.place.root / path).unlink()
    snapshot = load_snapshot(world.place)
    assert snapshot.vectors == {}
    assert path in snapshot.vectors_problem


def test_a_kind_that_is_broken_leaves_the_others(world: World) -> None:
    turned = replaced(
        vectors_table(), "embedding", vectors_table().column("embedding").take(pa.array(range(ITEM_COUNT)[::-1]))
    )
    world.publish_snapshot(vectors={"item2vec": vectors_table(), "deepwalk": turned, "node2vec": turned.slice(7)})
    snapshot = load_snapshot(world.place)
    assert list(snapshot.vectors) == ["item2vec", "deepwalk", "node2vec"]
    assert not snapshot.vectors_problem
    broken = world.place.root / snapshot.manifest.parts["deepwalk"].path
    broken.write_bytes(broken.read_bytes()[:-1])
    snapshot = load_snapshot(world.place)
    assert list(snapshot.vectors) == ["item2vec", "node2vec"]
    assert str(broken) in snapshot.vectors_problem


def plan(world: World, **changes: object) -> RankingPlan | RankingOff:
    world.publish_snapshot()
    return plan_ranking(world.publish_release(**changes), load_snapshot(world.place))  # type: ignore[arg-type] # fields


def test_a_release_of_the_same_views_ranks(world: World) -> None:
    found = plan(world, version="7")
    assert isinstance(found, RankingPlan)
    assert (found.model, found.version) == ("tiny.ranking", 7)
    names = {column.name for column in found.user_columns} | set(found.item_inputs)
    assert names == {column.name for column in RANKING.input_columns}


def test_a_model_of_other_features_ranks_without_a_deploy(world: World) -> None:
    signature = ranking(MOVIELENS, ("item_event_count", "item_windows", "user_windows"))
    found = plan(world, signature=signature.to_json(), views=signature.views)
    assert isinstance(found, RankingPlan)
    assert set(found.item_inputs) == {column.name for column in signature.scoped(Scope.ITEM)}
    assert "item_trend" in found.item_inputs
    sent = ranking_inputs(found, {"user_event_count_7d": 3}, np.arange(2), NOW)
    assert (sent["user_event_count_7d"].tolist(), sent["user_value_mean_7d"].tolist()) == ([3], [-1.0])
    assert sent.keys() == {column.name for column in signature.input_columns}


def test_an_answer_is_degraded_only_without_groups_that_somebody_reads(world: World) -> None:
    """Windows of somebody who was away for 90 days are too old: nobody minds while no model reads them."""
    world.publish_snapshot()
    snapshot = load_snapshot(world.place)
    recall = {USER_ACTIVITY.name, "user_history", "user_liked_items"}
    assert Online(snapshot, None, plan_ranking(None, snapshot)).user_groups == recall
    release = world.publish_release()
    assert (
        Online(snapshot, release, plan_ranking(release, snapshot)).user_groups == recall | RANKING_FEATURES.views.keys()
    )
    signature = ranking(MOVIELENS, ("user_windows",))
    release = world.publish_release(signature=signature.to_json(), views=signature.views)
    assert Online(snapshot, release, plan_ranking(release, snapshot)).user_groups == recall | {"user_windows"}


def test_sequences_are_fetched_where_a_model_or_its_canary_reads_them_and_nowhere_else(world: World) -> None:
    world.publish_snapshot()
    snapshot = load_snapshot(world.place)
    release = world.publish_release()
    plain = Online(snapshot, release, plan_ranking(release, snapshot))
    signature = ranking(MOVIELENS, ("ranking", "user_sequence_items"))
    release = world.publish_release(signature=signature.to_json(), views=signature.views)
    plan = plan_ranking(release, snapshot)
    assert isinstance(plan, RankingPlan)
    reading, compared = replace(plain, ranking=plan), replace(plain, canary=Canary(plan, None))
    whole = set(snapshot.layout.fields)
    sequence, windows = (
        {timestamp_field(group.view_name), *(feature_field(group.view_name, each.name) for each in group.features)}
        for group in (FEATURES.user_sequence, FEATURES.user_windows)
    )
    assert set(plain.layout.fields) == whole - sequence - windows
    assert set(reading.layout.fields) == set(compared.layout.fields) == whole - windows
    assert [group.name for group in reading.layout.groups][-3:] == ["user_sequence", "user_history", "user_liked_items"]
    assert compared.layout.spare - plain.layout.spare == {"user_sequence"}, "damage of it spoils no answer"
    assert "user_sequence" not in reading.layout.spare
    assert reading.layout.spare.isdisjoint(reading.user_groups)


def test_only_a_group_that_the_model_reads_takes_it_out_of_force(world: World) -> None:
    views = {"item_activity": FEATURES.item_activity.view_name}
    few = ranking(MOVIELENS, ("item_event_count",)).to_json()
    online = snapshot_views() | {USER_ACTIVITY.name: "user_activity_00000000"}
    world.publish_snapshot(views=online)
    fits = plan_ranking(world.publish_release(signature=few, views=views), load_snapshot(world.place))
    assert isinstance(fits, RankingPlan)
    every = RANKING_FEATURES.views
    unfit = plan_ranking(world.publish_release(signature=RANKING.to_json(), views=every), load_snapshot(world.place))
    assert isinstance(unfit, RankingOff)
    assert "user_activity_00000000" in unfit.reason


def test_a_catalogue_of_before_the_windows_serves_the_models_of_its_time(world: World) -> None:
    windows = [column.name for column in FEATURES.item_windows.features]
    world.publish_snapshot(catalogue_table().drop_columns(windows))
    snapshot = load_snapshot(world.place)
    assert isinstance(plan_ranking(world.publish_release(), snapshot), RankingPlan)
    signature = ranking(MOVIELENS, ("item_windows",))
    release = world.publish_release(signature=signature.to_json(), views=signature.views)
    unfit = plan_ranking(release, snapshot)
    assert isinstance(unfit, RankingOff)
    assert "'item_trend', " in unfit.reason
    assert "which the catalogue lacks; run feature_refresh" in unfit.reason


def test_the_request_s_time_is_sent_beside_the_user(world: World) -> None:
    found = plan(world)
    assert isinstance(found, RankingPlan)
    sent = ranking_inputs(found, {REQUEST_TIME.name: 893_289_600}, np.arange(3), NOW)[REQUEST_TIME.name]
    assert (sent.tolist(), sent.dtype) == ([893_289_600], np.int64)
    assert ranking_inputs(found, {}, np.arange(3), NOW)[REQUEST_TIME.name].tolist() == [0]


def test_the_clock_is_the_wall_s_the_snapshot_s_or_a_fixed_moment() -> None:
    replayed = datetime(1998, 4, 1, 12, tzinfo=UTC)
    assert Settings(recommender_clock="snapshot").now(CUTOFF) == datetime(1998, 4, 23, tzinfo=UTC)
    assert Settings(recommender_clock=replayed).now(CUTOFF) == replayed
    assert abs(Settings().now(CUTOFF) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"views": {**RANKING_FEATURES.views, ITEM_PROFILE.name: "item_profile_00000000"}}, "item_profile_00000000"),
        ({"inputs": ["item_id", "user_shoe_size"]}, "user_shoe_size"),
        ({"views": {USER_ACTIVITY.name: USER_ACTIVITY.view_name}}, "deploy the code"),
        ({"version": "seven"}, "whole number"),
        ({"namespace": "other"}, "one of other"),
    ],
)
def test_a_release_that_does_not_fit_ranks_nothing_and_says_why(
    world: World, changes: dict[str, object], reason: str
) -> None:
    found = plan(world, **changes)
    assert isinstance(found, RankingOff)
    assert reason in found.reason


def test_no_release_ranks_nothing(world: World) -> None:
    world.publish_snapshot()
    assert isinstance(plan_ranking(None, load_snapshot(world.place)), RankingOff)


def test_settings_come_from_the_environment_and_then_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.env").write_text(
        "KESTREL_NAMESPACE=ml-1m\nKESTREL_RECOMMENDER_CANDIDATES=500\nKESTREL_MLFLOW_URI=http://127.0.0.1:5000\n"
        "KESTREL_REDIS_URL=redis://:secret@127.0.0.1:6390/0\n"
    )
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path))
    monkeypatch.setenv("KESTREL_NAMESPACE", "ml-100k")
    settings = load_settings()
    assert settings.state == tmp_path
    assert settings.namespace == "ml-100k"
    assert settings.recommender_candidates == 500
    assert "secret" not in str(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KESTREL_RECOMMENDER_CANDIDATES", "10"),
        ("KESTREL_NAMESPACE", "../etc"),
        ("KESTREL_REDIS_URL", "http://:hunter2@127.0.0.1"),
        ("KESTREL_MODEL_SERVER_GRPC", "http://127.0.0.1:8500"),
        ("KESTREL_RECOMMENDER_CLOCK", "yesterday"),
        ("KESTREL_RECOMMENDER_REDIS_MS", "0"),
    ],
)
def test_a_bad_setting_is_named_and_its_secret_is_not(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(RecommenderError, match=name) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_the_catalogue_is_sorted_whatever_the_order_of_the_file(world: World) -> None:
    world.publish_snapshot(catalogue_table())
    first = load_snapshot(world.place).catalogue
    world.publish_snapshot(catalogue_table().take(list(reversed(range(ITEM_COUNT)))))
    second = load_snapshot(world.place).catalogue
    assert first.item_ids == second.item_ids
    assert first.popular.tolist() == second.popular.tolist()
    assert asdict(world.publish_snapshot())["items"] == ITEM_COUNT
