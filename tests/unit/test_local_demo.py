from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.text import Text

from feature_repo.contracts.manifests import Decision, Verdict
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.signatures import Scope
from infra.local import demo as demo_module
from infra.local.airflow_api import DagRun, TaskRun
from infra.local.demo import announce, choose_cutoff, choose_mapping, choose_namespace, may_take_over, only_demo
from infra.local.errors import LocalError, RunFailedError, SettingsError
from infra.local.report import (
    copyable_lines,
    ending,
    example_request,
    gates_table,
    lists_table,
    losses,
    measured_lines,
    metrics_table,
    print_lists,
)
from infra.local.settings import read_settings
from infra.local.stack import describe_stack
from infra.local.watching import Chain, changes, elapsed, in_order
from tests.lists_record import lists_record, unmeasured_record
from tests.movielens import RANKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPOSITORY = Path(__file__).parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)


def task(name: str, state: str, attempt: int = 1, seconds: int | None = 0) -> TaskRun:
    start = None if seconds is None else START + timedelta(seconds=seconds)
    return TaskRun(name, state, attempt, start, None)


def rendered(renderable: object) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def verdict(decision: Decision, gates: list[dict[str, Any]] | None = None) -> Verdict:
    return Verdict("ml-100k", "ranking", "7", "run", decision, "because of the figures.", "6", gates or [])


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0:00"), (59, "0:59"), (61, "1:01"), (3600, "60:00")])
def test_elapsed_is_minutes_and_seconds(seconds: int, expected: str) -> None:
    assert elapsed(START, START + timedelta(seconds=seconds), START) == expected
    assert elapsed(START, None, START + timedelta(seconds=seconds)) == expected


def test_nothing_has_elapsed_before_the_start() -> None:
    assert not elapsed(None, None, START)


def test_tasks_stand_in_the_order_of_their_start() -> None:
    tasks = [task("later", "running", seconds=9), task("waiting", "none", seconds=None), task("first", "success")]
    assert [each.task for each in in_order(tasks)] == ["first", "later", "waiting"]


def test_plain_lines_tell_each_change_once() -> None:
    earlier = (task("a", "running"), task("b", "running"), task("c", "up_for_retry"))
    before = {each.key: each for each in earlier}
    after = [task("a", "success"), task("b", "running"), task("c", "running", attempt=2), task("d", "queued")]
    lines = changes(before, after, "dag", START)
    assert [line.split()[1:3] for line in lines] == [["a", "success"], ["c", "running"]]
    assert "(attempt 2)" in lines[1]


def test_mapped_tasks_are_told_apart_and_called_by_what_they_stand_for() -> None:
    first, second = (
        TaskRun("train", "running", 1, START, None, map_index=place, element=name)
        for place, name in enumerate(("deepfm", "lr"))
    )
    unnamed = TaskRun("train", "running", 1, START, None, map_index=0, element="0")
    lines = changes({unnamed.key: unnamed}, [first, second], "dag", START)
    assert [line.split()[1:4] for line in lines] == [["train", "lr", "running"]]


def test_namespace_is_the_given_one_or_the_data_sets() -> None:
    assert choose_namespace("mine", {"namespace": "ml-1m"}) == "mine"
    assert choose_namespace("", {"namespace": "ml-1m"}) == "ml-1m"
    with pytest.raises(SettingsError, match="NAMESPACE: namespace 'No Good'"):
        choose_namespace("No Good", {})


def test_mapping_is_a_whole_path_or_a_name_and_needs_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.yaml").write_text("name: x")
    monkeypatch.chdir(tmp_path)
    assert choose_mapping("my.yaml", "data") == str(tmp_path / "my.yaml")
    assert choose_mapping("online-retail", "data") == "online-retail"
    assert not choose_mapping("", "")
    with pytest.raises(SettingsError, match=r"SOURCE=my\.yaml: expected DATA="):
        choose_mapping("my.yaml", "")


def test_cutoff_is_a_date_or_nothing() -> None:
    assert choose_cutoff("") is None
    assert choose_cutoff("1998-04-23T00:00:00Z") == "1998-04-23"
    with pytest.raises(SettingsError, match="CUTOFF: cutoff 'tomorrow'"):
        choose_cutoff("tomorrow")


def test_a_cutoff_does_not_lie_after_the_clock() -> None:
    noon = datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert choose_cutoff("2026-11-29", noon) == "2026-11-29"
    for later in ("2026-11-30", "2050-01-01"):
        with pytest.raises(SettingsError, match=r"CUTOFF: .*after the clock, 2026-11-29T12.*expected 2026-11-29 at"):
            choose_cutoff(later, noon)
    with pytest.raises(SettingsError, match="lies after the clock"):
        choose_cutoff("9000-01-01")


def online(state: Path, namespace: str) -> None:
    """Leave what a refresh leaves that has passed its checks."""
    pointer = Namespace(state, namespace).online_current
    pointer.parent.mkdir(parents=True)
    pointer.write_text("{}")


def promoted(state: Path, namespace: str) -> None:
    """Leave what a promotion leaves."""
    release = Serving(state).current_release(namespace)
    release.parent.mkdir(parents=True)
    release.write_text("{}")


def test_a_namespace_takes_over_with_its_data_online_and_a_model_or_where_nobody_has_one(tmp_path: Path) -> None:
    assert not may_take_over(tmp_path, "new", "old"), "nothing of it is online"
    promoted(tmp_path, "new")
    assert not may_take_over(tmp_path, "new", "old"), "its features are not online"
    online(tmp_path, "new")
    assert may_take_over(tmp_path, "new", "old")
    online(tmp_path, "rejected")
    assert may_take_over(tmp_path, "rejected", "old"), "nobody loses a ranking"
    assert not may_take_over(tmp_path, "rejected", "new")


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Follow a refresh of namespace `new` to a given end, beside a recommender that answers for ml-100k.

    Nothing is started: the start of a stack tells what it would be told, which are the namespaces that are returned.
    """
    monkeypatch.delenv("KESTREL_NAMESPACE", raising=False)

    def follow(end: Callable[..., Chain]) -> list[str]:
        started: list[str] = []

        def start(state: Path, environ: Mapping[str, str], **_: object) -> object:
            stack = describe_stack(state, environ)
            started.append(stack.settings.namespace)
            return stack

        monkeypatch.setattr(demo_module, "start_stack", start)
        monkeypatch.setattr(demo_module, "watch", end)
        monkeypatch.setattr(demo_module.Airflow, "run", lambda *_: refresh)
        monkeypatch.setattr(
            "infra.local.report.print_report", lambda *_, is_served, **__: started.append(str(is_served))
        )
        refresh = DagRun("feature_refresh", "manual", "running", "", None, None, {"namespace": "new"})
        (tmp_path / "run").mkdir(exist_ok=True)
        try:
            demo_module.watch_again(
                state=tmp_path, run_id="manual", resume=False, console=Console(quiet=True), say=lambda _: None
            )
        except RunFailedError:
            started.append("failed")
        return started

    return follow


def test_the_recommender_stays_with_its_namespace_until_the_new_data_has_passed(
    tmp_path: Path, followed: Callable[..., list[str]]
) -> None:
    def fail(*_: object, **__: object) -> Chain:
        msg = "feature_refresh: task ingest failed"
        raise RunFailedError(msg)

    def end_well(*_: object, **__: object) -> Chain:
        return Chain()

    promoted(tmp_path, "ml-100k")
    assert followed(fail) == ["ml-100k", "failed"]
    online(tmp_path, "new")
    assert followed(end_well) == ["ml-100k", "False"], "its model was rejected"
    assert read_settings(tmp_path, {}).namespace == "ml-100k"
    promoted(tmp_path, "new")
    assert followed(end_well) == ["ml-100k", "new", "True"]
    assert read_settings(tmp_path, {}).namespace == "new"


def test_more_events_are_announced_with_more_time_memory_and_disk() -> None:
    said: list[str] = []
    for events in (100_000, 32_000_000):
        described = {"events": events, "layout": "x", "seconds": 60 + events // 10_000, "disk_bytes": 250 * events}
        described |= {"training_rows": 2 * events}
        announce(Path("/data"), "ml", described, said.append)
    assert "100,000 events, namespace ml" in said[0]
    assert said[1] == "This will take about 7 minutes, 5 GB of memory, and 0.3 GB of disk in the state folder"
    minutes, memory, disk = (float(said[3].split()[place]) for place in (4, 6, 11))
    assert minutes > 100
    assert memory > 50
    assert disk > 7


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision.PROMOTE, "Version 7: because"),
        (Decision.TIE, "Version 7: because"),
        (Decision.REJECT, "A rejection is a normal ending. Now"),
    ],
)
def test_ending_says_what_was_decided_and_what_serves(decision: Decision, words: str) -> None:
    text = ending(verdict(decision), {"version": "6", "model": "ml-100k.ranking", "since": "noon"})
    assert words in text
    assert "Now version 6 serves (ml-100k.ranking, since noon)." in text


def test_first_rejection_serves_nothing() -> None:
    text = ending(verdict(Decision.REJECT), {"version": None, "model": "ml-100k.ranking", "since": None})
    assert "Now nothing is served yet" in text


def test_tables_show_figures_and_what_does_not_apply() -> None:
    gates: list[dict[str, Any]] = [
        {"name": "auc_over_means", "figure": 0.0123456, "threshold": 0.0, "verdict": "pass", "details": {}},
        {"name": "auc_over_champion", "figure": None, "threshold": None, "verdict": "not applicable", "details": {}},
    ]
    text = rendered(gates_table(verdict(Decision.PROMOTE, gates)))
    assert "0.0123" in text
    assert "not applicable" in text
    evaluation = {"rows": 10_000, "metrics": {"test": {"candidate": {"auc": 0.75, "gauc": 0.7, "log_loss": None}}}}
    text = rendered(metrics_table(evaluation, "test", "now"))
    assert "10,000 rows" in text
    assert "0.7500" in text


def test_example_is_a_small_request_for_one_user() -> None:
    inputs = {column.name: [1] * 50 for column in RANKING.scoped(Scope.ITEM)}
    inputs |= {column.name: [2] for column in RANKING.scoped(Scope.USER)}
    golden = {"requests": [{"signature_name": "serving_default"}, {"signature_name": "one_user", "inputs": inputs}]}
    example = example_request(golden)
    assert {len(example["inputs"][column.name]) for column in RANKING.scoped(Scope.ITEM)} == {3}
    assert {len(example["inputs"][column.name]) for column in RANKING.scoped(Scope.USER)} == {1}


def test_copyable_lines_name_the_real_addresses(tmp_path: Path) -> None:
    settings = read_settings(tmp_path, {"KESTREL_MODEL_SERVER_REST": "http://127.0.0.1:9501"})
    lines = copyable_lines(settings, "ml-100k", "405", tmp_path / "a request.json")
    assert any("http://127.0.0.1:9501/v1/models/ml-100k.ranking:predict" in line for line in lines)
    assert f"'{tmp_path}/a request.json'" in lines[-1]
    assert len(copyable_lines(settings, "ml-100k", "405", None)) == 1


def test_measured_lines_have_the_figures() -> None:
    bench = {"k": 10, "p50_ms": 4.5, "p99_ms": 9.0, "requests": 300, "ranked": 299}
    text = "\n".join(measured_lines(125.0, 3 * 1024**3, bench))
    for figure in ("2 min 5 s", "3.00 GB", "p50 4.5 ms", "p99 9.0 ms", "299 of them"):
        assert figure in text


def test_no_request_is_measured_where_none_was_made() -> None:
    assert [line.split()[0] for line in measured_lines(125.0, 3 * 1024**3, None)] == ["this", "peak"]


def test_a_candidate_that_loses_is_reported_as_losing() -> None:
    measured = {"candidate": {"auc": 0.71}, "lr": {"auc": 0.716}, "means": {"auc": 0.714}, "popularity": {"auc": 0.6}}
    won = {"candidate": {"auc": 0.75}, "lr": {"auc": 0.74}}
    evaluation = {"metrics": {"test": won, "test_as_of_refresh": measured}}
    assert "loses to lr, means" in losses(evaluation, "test_as_of_refresh")
    assert losses(evaluation, "test") == ""


def test_a_candidate_that_orders_a_users_rows_alone_loses_by_what_it_has() -> None:
    measured = {
        "candidate": {"auc": None, "gauc": 0.69},
        "lists_linear": {"auc": None, "gauc": 0.7},
        "lr": {"auc": 0.9, "gauc": 0.6},
        "flat": {"auc": 0.5, "gauc": None},
    }
    assert "loses to lists_linear here (GAUC)" in losses({"metrics": {"test": measured}}, "test")


def listed(lists: dict[str, Any]) -> str:
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        print_lists(lists, console)
    return Text.from_ansi(capture.get()).plain


def test_lists_are_shown_beside_simple_ones_within_a_narrow_terminal() -> None:
    lists = lists_record()
    text = listed(lists)
    table = text.partition("The candidate's lists")[0]
    assert "Lists: 4 users with 5+ events asked 1998-01-15, 12 answers until 1998-02-14" in table
    assert [line.split("  ")[0].strip() for line in table.splitlines()[2:]] == [
        *("candidate", "unranked", "most liked", "most liked, 7 days", "most liked, 30 days"),
        *("most liked, recency-weighted", "ItemCF", "EASE"),
    ]
    assert all(heading in table for heading in ("NDCG@10", "Recall@10", "diversity", "overlap"))
    assert "…" not in table
    assert " ".join(text[len(table) :].split()) == lists["sentence"]


def test_the_best_list_of_a_column_is_bold_and_little_overlap_is_best() -> None:
    row = {"ndcg_at_10": 0.1, "coverage": None, "overlap": 0.4}
    rows = [{"list": "candidate", **row}, {"list": "EASE", **row, "ndcg_at_10": 0.2}, {"list": "worse", "overlap": 0.5}]
    lists = lists_record()
    lists["tables"][0]["rows"] = rows
    cells = [list(column.cells) for column in lists_table(lists).columns]
    assert cells[1] == ["0.100", "[bold]0.200[/]", "-"]
    assert cells[4] == ["-"] * 3
    assert cells[-1] == ["[bold]0.400[/]", "[bold]0.400[/]", "0.500"]


def test_lists_that_were_not_measured_are_one_sentence() -> None:
    lists = unmeasured_record("there is no [test] origin")
    assert listed(lists).strip() == "Lists were not measured: there is no [test] origin."


def test_a_second_demo_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    with only_demo(tmp_path), pytest.raises(LocalError, match="another make demo runs"), only_demo(tmp_path):
        pytest.fail("both run")
    with only_demo(tmp_path):
        pass


@pytest.mark.parametrize("name", ["DATA", "NAMESPACE", "CUTOFF"])
def test_an_empty_value_is_not_taken_for_the_default(name: str) -> None:
    """`make demo DATA=$UNSET` would run for minutes on data that nobody meant."""
    make = ["make", "help", f"{name}="]  # demo itself would begin with the environment
    done = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"{name}= is empty" in done.stderr
