"""The DAGs as Airflow loads them: graphs, schedules, forms and the command lines they come to."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.definitions.param import SerializedParam

from dags._policy import task_timeout
from feature_repo.contracts.intervals import PartitionKey, check_namespace, end_of_day
from feature_repo.contracts.orchestration import POOL, POOL_SLOTS

DAGS = Path(__file__).parents[2] / "dags"
INTERVAL = "ml-100k|1998-04-23T00:00:00Z"


@pytest.fixture(scope="module")
def dags():
    bag = DagBag(dag_folder=str(DAGS))
    assert not bag.import_errors
    return bag.dags


def edges(dag):
    return {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}


def test_folder_holds_the_dags_and_nothing_that_airflow_mistakes_for_one(dags):
    assert set(dags) == {"feature_refresh", "model_training", "model_rollout", "model_rollback"}


def test_feature_refresh_graph(dags):
    assert edges(dags["feature_refresh"]) == {
        ("ingest", "check"),
        ("check", "features"),
        ("check", "embeddings"),
        ("check", "channels"),
        ("check", "registry"),
        ("land", "ingest"),
        ("features", "materialize"),
        ("registry", "materialize"),
        ("embeddings", "materialize"),
        ("channels", "materialize"),
        ("materialize", "verify_online"),
        ("verify_online", "publish"),
    }


def test_model_training_graph(dags):
    assert edges(dags["model_training"]) == {
        ("training_set", "questions"),
        ("questions", "candidates"),
        ("candidates", "list_rows"),
        ("list_rows", "train"),
        ("specs", "train"),
        ("train", "validation_lists"),
        ("validation_lists", "choose"),
        ("choose", "refit"),
        ("refit", "lists"),
        ("lists", "evaluate"),
        ("evaluate", "serving_check"),
        ("serving_check", "gate"),
    }


def test_every_task_ends_in_time(dags):
    assert {task.execution_timeout for dag in dags.values() for task in dag.tasks} == {timedelta(hours=6)}


def test_a_measurement_of_latency_runs_beside_nothing_that_keeps_the_machine_busy(dags):
    slots = {task.task_id: task.pool_slots for dag in dags.values() for task in dag.tasks if task.pool == POOL}
    assert {name for name, taken in slots.items() if taken == POOL_SLOTS} == {"serving_check", "compare"}
    busy = {name for name, taken in slots.items() if taken == 1}
    assert {"questions", "features", "embeddings", "channels"} <= busy
    assert all(2 * slots[name] > POOL_SLOTS for name in ("train", "refit")), "one training at a time"
    assert "rollback" not in slots, "nothing may keep it waiting"


@pytest.mark.parametrize(("text", "hours"), [("", 6), (" ", 6), ("0.5", 0.5), ("48", 48)])
def test_the_time_that_a_task_may_take_is_a_setting(monkeypatch, text, hours):
    monkeypatch.setenv("KESTREL_TASK_TIMEOUT_HOURS", text)
    assert task_timeout() == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "9000", "6h", "half"])
def test_a_time_that_is_none_is_named_with_what_is_expected(monkeypatch, text):
    monkeypatch.setenv("KESTREL_TASK_TIMEOUT_HOURS", text)
    with pytest.raises(
        ValueError, match=rf"KESTREL_TASK_TIMEOUT_HOURS='{text}': expected hours above 0 and up to 8760"
    ):
        task_timeout()


def test_model_rollout_graph(dags):
    assert edges(dags["model_rollout"]) == {
        ("verdict", "publish"),
        ("publish", "replay"),
        ("replay", "canary"),
        ("canary", "compare"),
        ("compare", "promote"),
    }


def test_model_rollback_is_one_task_started_by_hand(dags):
    dag = dags["model_rollback"]
    assert [task.task_id for task in dag.tasks] == ["rollback"]
    assert dag.timetable.can_be_scheduled is False


def test_assets_link_the_dags(dags):
    def listens(dag):
        return dags[dag].timetable.asset_condition.name

    assert [asset.name for asset in dags["feature_refresh"].get_task("publish").outlets] == ["features"]
    assert listens("model_training") == "features"
    assert [asset.name for asset in dags["model_training"].get_task("gate").outlets] == ["verdict"]
    assert listens("model_rollout") == "verdict"


def test_only_the_publishing_tasks_emit(dags):
    emitting = {task.task_id for dag in dags.values() for task in dag.tasks if task.outlets}
    assert emitting == {"publish", "gate"}


def test_every_dag_and_task_is_documented_and_every_param_has_a_form_entry(dags):
    for dag in dags.values():
        assert dag.doc_md
        assert dag.owner == "kestrel"
        assert all(task.doc_md for task in dag.tasks)
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.description, f"{dag.dag_id}.{name}"
            assert param.schema.get("title"), f"{dag.dag_id}.{name}"
            param.resolve()


@pytest.mark.parametrize("bad", ["", "ML", "../up", "a b", "-a", "a-", "a\n", "a\n\n", "\na", "a" * 49, "é", "a_b"])
def test_form_refuses_a_bad_namespace_as_the_command_line_does(dags, bad):
    for dag in dags.values():
        param = dag.params.get_param("namespace")
        with pytest.raises(Exception, match="does not match"):
            param.resolve(bad)
        with pytest.raises(Exception, match="does not match"):  # as the REST API looks at it
            SerializedParam(bad, **param.schema).resolve(raises=True)
    with pytest.raises(ValueError, match="lower case letters"):
        check_namespace(bad)


@pytest.mark.parametrize("good", ["a", "0", "ml-100k", "a" * 48, "a--b"])
def test_form_takes_every_namespace_that_the_command_line_takes(dags, good):
    assert dags["feature_refresh"].params.get_param("namespace").resolve(good) == check_namespace(good)


def rendered(task, **context):
    task = task.prepare_for_execution()
    left_out = dict.fromkeys(("cutoff", "start", "clock", "source_mapping"))
    context = {
        "params": {"namespace": "ml-100k", "mode": "whole", **left_out, **context.pop("params", {})},
        **context,
    }
    task.render_template_fields({"task": task, **context}, jinja_env=task.dag.get_template_env())
    task.require_fit()
    return task


class TaskInstance:
    """What the templates ask of Airflow's task instance."""

    def __init__(self, **results):
        self.results = results

    def xcom_pull(self, task_ids, key="return_value"):
        return self.results[task_ids if key == "return_value" else (task_ids, key)]


class Run:
    """What the templates ask of Airflow's run."""

    def __init__(self, run_type, conf=None):
        self.run_type = run_type
        self.conf = conf


@pytest.fixture(autouse=True)
def state(monkeypatch):
    monkeypatch.setenv("KESTREL_STATE", "/state")


def test_ingest_passes_a_hostile_value_as_one_argument_and_leaves_out_what_is_empty(dags):
    hostile = '/x\'; rm -rf $(HOME) "`id`" &'
    task = rendered(dags["feature_refresh"].get_task("ingest"), params={"source": hostile}, dag_run=Run("manual"))
    given = ["--namespace", "ml-100k", "--source", hostile, "--mode", "whole"]
    assert task.arguments()[1:] == ["-m", "pipelines", "ingest", *given]


END = PartitionKey.parse(INTERVAL).cutoff


@pytest.mark.parametrize(
    ("cutoff", "context", "expected"),
    [
        ("1998-01-01", {"dag_run": Run("manual")}, "1998-01-01T00:00:00Z"),
        (None, {"dag_run": Run("scheduled"), "data_interval_end": END}, "1998-04-23"),
        (None, {"dag_run": Run("backfill"), "data_interval_end": END}, "1998-04-23"),
        (None, {"dag_run": Run("manual"), "data_interval_end": END}, ""),
        (None, {"dag_run": Run("manual")}, ""),
    ],
)
def test_cutoff_is_the_forms_else_the_end_of_a_scheduled_interval(dags, cutoff, context, expected):
    task = rendered(dags["feature_refresh"].get_task("ingest"), params={"source": "s", "cutoff": cutoff}, **context)
    assert task.options["cutoff"] == expected


def test_a_relative_source_starts_at_the_state_folder(dags):
    task = rendered(
        dags["feature_refresh"].get_task("ingest"), params={"source": "sources/ml-100k"}, dag_run=Run("manual")
    )
    assert task.options["source"] == "/state/sources/ml-100k"


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [(None, ""), ("online-retail", "online-retail"), ("my.yaml", "/state/my.yaml"), ("/data/my.yaml", "/data/my.yaml")],
)
def test_a_mapping_is_a_name_or_a_path_like_that_of_a_source(dags, mapping, expected):
    params = {"source": "s", "source_mapping": mapping, "mode": "part"}
    task = rendered(dags["feature_refresh"].get_task("ingest"), params=params, dag_run=Run("manual"))
    assert (task.options["mapping"], task.options["mode"]) == (expected, "part")


def test_interval_found_by_ingest_travels_through_the_run_and_into_the_asset(dags):
    ti = TaskInstance(ingest={"cutoff": "1998-04-23T00:00:00Z"})
    task = rendered(dags["feature_refresh"].get_task("publish"), ti=ti)
    assert task.options == {"namespace": "ml-100k", "cutoff": "1998-04-23T00:00:00Z"}
    assert task.partition_key == INTERVAL


def test_training_takes_namespace_and_cutoff_from_the_assets_partition(dags):
    key = "other|1999-01-01T00:00:00Z"
    task = rendered(dags["model_training"].get_task("training_set"), partition_key=key)
    assert task.options == {"namespace": "other", "cutoff": "1999-01-01T00:00:00Z"}


def test_training_by_hand_takes_them_from_the_form_or_says_what_is_missing(dags):
    training_set = dags["model_training"].get_task("training_set")
    assert (
        rendered(training_set, partition_key=None, params={"cutoff": "1998-04-23"}).options["cutoff"]
        == "1998-04-23T00:00:00Z"
    )
    with pytest.raises(AirflowFailException, match="fill in 'Cutoff'"):
        rendered(training_set, partition_key=None)


def first_task(dag):
    return next(task for task in dag.tasks if not task.upstream_task_ids)


@pytest.mark.parametrize("dag", ["feature_refresh", "model_training", "model_rollout", "model_rollback"])
def test_a_key_that_a_dag_does_not_know_fails_its_first_task_for_good(dags, dag):
    conf = {"namespace": "x", "nmaespace": "sources/mine"}
    with pytest.raises(AirflowFailException, match=r"expected keys among .*namespace.*'nmaespace'; did you mean 'name"):
        rendered(first_task(dags[dag]), dag_run=Run("manual", conf))


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({"namespace": "a\n"}, "lower case letters"),
        ({"clock": "noon"}, "clock 'noon': expected a moment such as"),
        ({"start": "1998-04-23T01:00:00Z"}, "expected midnight UTC"),
        ({"cutoff": "2020-01-01", "clock": "2019-12-30T23:59:59Z"}, "expected 2019-12-31 at the latest"),
        ({"cutoff": "2050-01-01", "clock": "2060-01-01T00:00:00Z"}, "clock 2060-01-01T00:00:00Z lies ahead of today"),
        ({"cutoff": "1998-04-23", "start": "1998-04-23"}, "expected a start before the cutoff"),
        ({"cutoff": f"{end_of_day(datetime.now(UTC)) + timedelta(days=2):%Y-%m-%d}"}, "lies after the clock"),
    ],
)
def test_a_value_that_the_command_line_would_refuse_fails_the_first_task_for_good(dags, conf, sentence):
    with pytest.raises(AirflowFailException, match=sentence):
        rendered(first_task(dags["feature_refresh"]), dag_run=Run("manual", conf))


def test_what_the_form_fills_in_by_itself_is_taken(dags):
    for dag in dags.values():
        conf = {name: dag.params[name] for name in dag.params}
        dag_run = Run("scheduled", conf)
        event = {"partition_key": INTERVAL, "triggering_asset_events": {}, "run_id": "a"}
        params = conf | ({"version": 3} if "version" in conf else {})
        rendered(first_task(dag), dag_run=dag_run, params=params, **event)


def test_a_partition_that_is_none_fails_for_good(dags):
    for dag in ("model_training", "model_rollout"):
        context = {"partition_key": "ml-100k", "triggering_asset_events": {}, "params": {"version": 3}}
        with pytest.raises(AirflowFailException, match=r"expected <namespace>\|<cutoff>"):
            rendered(first_task(dags[dag]), **context)


def test_a_template_that_cannot_be_rendered_fails_for_good(dags):
    for results in ({}, {"ingest": None}, {"ingest": {}}):
        with pytest.raises(AirflowFailException):
            rendered(dags["feature_refresh"].get_task("check"), ti=TaskInstance(**results)).arguments()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({"specs": [], "configs": {}}, []),
        ({"specs": ["deepfm", "lr"], "configs": {}}, ["--only", '["deepfm", "lr"]']),
        ({"specs": [], "configs": {"deepfm": {"l2": 0.1}}}, ["--configs", '{"deepfm": {"l2": 0.1}}']),
    ],
)
def test_the_form_says_what_is_trained_and_how(dags, form, options):
    task = rendered(dags["model_training"].get_task("specs"), params=form, partition_key=INTERVAL)
    assert task.arguments()[1:] == ["-m", "models", "specs", *options]


def test_no_first_task_of_a_training_starts_without_an_interval(dags):
    for task in (task for task in dags["model_training"].tasks if not task.upstream_task_ids):
        with pytest.raises(AirflowFailException, match="triggered by hand without a cutoff"):
            rendered(task, params={"specs": [], "configs": {}}, partition_key=None)


def test_every_spec_is_trained_as_a_task_of_its_name(dags):
    spec = {"name": "it's", "class": "deepfm", "config": {"hidden": [8]}}
    train = dags["model_training"].get_task("train")
    assert train.partial_kwargs["map_index_template"] == "{{ task.each.name }}"
    ti = TaskInstance(training_set={"training_set": "set"}, list_rows={"training_set": "rows"})
    task = rendered(train.unmap({"each": spec}), partition_key=INTERVAL, run_id="a", ti=ti)
    assert json.loads(task.options["spec"]) == spec
    assert (task.options["training-set"], task.options["lists"]) == ("set", "rows")


def test_a_log_too_short_for_rows_of_lists_trains_the_other_specs(dags):
    train = dags["model_training"].get_task("train")
    assert train.partial_kwargs["trigger_rule"] == "none_failed"
    ti = TaskInstance(training_set={"training_set": "set"}, list_rows=None)  # it was skipped
    task = rendered(train.unmap({"each": {"name": "lr"}}), partition_key=INTERVAL, run_id="a", ti=ti)
    assert "--lists" not in task.arguments()


def test_the_past_is_asked_before_rows_are_made_of_what_recall_offers(dags):
    ti = TaskInstance(questions={"questions": "asked"}, candidates={"candidates": "offered"})
    offered = rendered(dags["model_training"].get_task("candidates"), partition_key=INTERVAL, ti=ti)
    assert offered.arguments()[1:] == [
        *("-m", "serving.lists", "candidates", "--namespace", "ml-100k", "--questions", "asked")
    ]
    rows = rendered(dags["model_training"].get_task("list_rows"), partition_key=INTERVAL, ti=ti)
    assert rows.arguments()[1:] == [
        *("-m", "pipelines", "training-set", "--namespace", "ml-100k", "--cutoff", "1998-04-23T00:00:00Z"),
        *("--kind", "lists", "--candidates", "offered"),
    ]


def test_the_lists_of_what_was_trained_and_may_be_champion_are_compared(dags):
    trained = {"trained": True, "training_set": "set"}
    results = [
        {"name": "lists", "saved_model": "/a", "competes": True, **trained},
        {"name": "lr", "saved_model": "/b", "competes": False, **trained},
        {"name": "deepfm", "trained": False, "why": "no rows"},
    ]
    results_of = {"questions": {"questions": "asked"}, "train": results}
    for offered, expected in (({"candidates": "offered"}, "offered"), (None, "")):
        ti = TaskInstance(**results_of, candidates=offered)
        task = rendered(dags["model_training"].get_task("validation_lists"), partition_key=INTERVAL, run_id="a", ti=ti)
        assert task.options["candidates"] == expected
    assert [each["name"] for each in json.loads(task.options["models"])] == ["lists"]
    assert task.options["out"] == "/state/data/ml-100k/candidates/a/validation_lists.json"


def test_the_trained_specs_are_chosen_from_by_their_files_metric(dags):
    listed = [{"name": "deepfm"}, {"name": "lr"}]
    ti = TaskInstance(training_set={"training_set": "set"}, specs=listed, list_rows={"training_set": "rows"})
    ti.results["specs", "result"] = {"choose_by": "ndcg_at_10", "choose_without_lists": "log_loss", "specs": listed}
    task = rendered(dags["model_training"].get_task("choose"), partition_key=INTERVAL, run_id="a", ti=ti)
    assert json.loads(task.options["specs"]) == listed
    assert (task.options["choose-by"], task.options["choose-without-lists"]) == ("ndcg_at_10", "log_loss")
    assert task.options["lists"] == "rows"
    assert task.options["validation-lists"] == "/state/data/ml-100k/candidates/a/validation_lists.json"


def test_serving_check_looks_into_the_runs_own_folder(dags):
    ti = TaskInstance(choose={"saved_model": "/chosen/saved_model"})
    task = rendered(
        dags["model_training"].get_task("serving_check"),
        partition_key=INTERVAL,
        run_id="asset__1998-04-23T00:00",
        ti=ti,
    )
    folder = "/state/data/ml-100k/candidates/asset-1998-04-23t00-00"
    assert task.options == {
        "saved-model": "/chosen/saved_model",
        "golden": f"{folder}/golden.json",
        "out": f"{folder}/serving_check.json",
    }


def test_questions_are_asked_from_where_the_training_set_ends(dags):
    ti = TaskInstance(training_set={"training_set": "set", "rows": {}})
    task = rendered(dags["model_training"].get_task("questions"), partition_key=INTERVAL, ti=ti)
    assert task.arguments()[1:] == [
        *("-m", "pipelines", "questions", "--namespace", "ml-100k"),
        *("--cutoff", "1998-04-23T00:00:00Z", "--training-set", "set"),
    ]


def test_lists_answer_the_runs_own_questions_with_the_runs_own_model(dags):
    ti = TaskInstance(
        training_set={"training_set": "set"},
        questions={"questions": "asked", "asked": {}, "note": ""},
        choose={"saved_model": "/chosen/saved_model", "training_set": "rows", "policy": "/chosen/policy.json"},
    )
    task = rendered(
        dags["model_training"].get_task("lists"), partition_key=INTERVAL, run_id="asset__1998-04-23T00:00", ti=ti
    )
    folder = "/state/data/ml-100k/candidates/asset-1998-04-23t00-00"
    assert task.arguments()[1:] == [
        *("-m", "serving.lists", "measure", "--namespace", "ml-100k", "--questions", "asked"),
        *("--saved-model", "/chosen/saved_model", "--training-set", "rows", "--policy", "/chosen/policy.json"),
        *("--refit", f"{folder}/refit.json", "--out", f"{folder}/lists.json"),
    ]


def test_the_champions_spec_is_fitted_again_by_what_the_run_asks(dags):
    ti = TaskInstance(training_set={"training_set": "set"}, questions={"questions": "asked"})
    task = rendered(dags["model_training"].get_task("refit"), partition_key=INTERVAL, run_id="a", ti=ti)
    assert task.arguments()[1:] == [
        *("-m", "models", "refit", "--namespace", "ml-100k", "--training-set", "set", "--run-key", "a"),
        *("--questions", "asked"),
    ]


def test_rollout_takes_the_version_from_the_verdict_that_triggered_it(dags):
    from dags._policy import VERDICT

    class Event:
        extra = {"version": "7"}  # noqa: RUF012 - a stand-in for Airflow's event

    for task in dags["model_rollout"].tasks:
        context = {"partition_key": INTERVAL, "triggering_asset_events": {VERDICT: [Event()]}, "run_id": "asset__1"}
        options = rendered(task, **context).options
        key = {"key": "asset-1"} if task.task_id == "promote" else {}
        assert options == {"namespace": "ml-100k", "version": "7", **key}


@pytest.mark.parametrize(("version", "to"), [(None, []), (3, ["--to", "3"]), (3.0, ["--to", "3"])])
def test_a_rollback_names_its_run_so_that_a_retry_is_no_second_one(dags, version, to):
    hostile = "clicks fell; $(reboot)"
    task = dags["model_rollback"].get_task("rollback")
    arguments = rendered(task, params={"version": version, "reason": hostile}, run_id="manual__2026-11-23").arguments()
    assert arguments[1:] == [
        *("-m", "serving.rollout", "rollback", "--namespace", "ml-100k"),
        *to,
        *("--reason", hostile, "--key", "manual-2026-11-23"),
    ]


def test_rollout_by_hand_needs_a_version(dags):
    task = dags["model_rollout"].get_task("verdict")
    for version in (3, 3.0):
        params = {"version": version}
        given = rendered(task, partition_key=None, triggering_asset_events={}, params=params).options
        assert given["version"] == "3"
    with pytest.raises(AirflowFailException, match="fill in 'Version'"):
        rendered(task, partition_key=None, triggering_asset_events={})


def test_a_verdict_without_a_version_fails_for_good(dags):
    from dags._policy import VERDICT

    class Event:
        extra = {"decision": "promote"}  # noqa: RUF012 - a stand-in for Airflow's event

    context = {"partition_key": INTERVAL, "triggering_asset_events": {VERDICT: [Event()]}, "run_id": "asset__1"}
    with pytest.raises(AirflowFailException, match="expected the registered version in its extra"):
        rendered(dags["model_rollout"].get_task("verdict"), **context)


def test_refresh_is_scheduled_by_setting():
    code = "from dags.feature_refresh import DAG; from dags._policy import refresh_schedule; print(refresh_schedule())"
    scheduled = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KESTREL_REFRESH_CRON": "30 2 * * *"},
        cwd=DAGS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CronDataIntervalTimetable" in scheduled.stdout
