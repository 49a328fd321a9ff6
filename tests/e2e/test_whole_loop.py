"""The whole loop, every part real: each part is load-bearing."""

from __future__ import annotations

import shutil
from http import HTTPStatus

import httpx
import psutil
import pytest

from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import read_json
from infra.local.errors import LocalError
from infra.local.places import Places
from infra.local.processes import stack_processes
from infra.local.report import candidate_folder
from infra.local.supervisor import Supervisor
from serving.recommender.release import load_policy
from tests.e2e.conftest import LEAKED, MODEL, NAMESPACE, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


def states(stage, dag):
    return {task.name: task.state for task in stage.chain.tasks[dag]}


def test_the_three_runs_finish_although_the_demo_was_killed_right_after_its_trigger(first):
    assert {dag: run.state for dag, run in first.chain.runs.items()} == {
        "feature_refresh": "success",
        "model_training": "success",
        "model_rollout": "success",
    }
    assert set(states(first, "model_rollout").values()) == {"success"}


def test_the_candidates_lists_were_measured_and_are_in_its_evaluation_and_in_mlflow(first, stack):
    tasks = states(first, "model_training")
    assert tasks == dict.fromkeys(
        (
            *("training_set", "questions", "candidates", "list_rows", "specs"),
            *("train deepfm", "train lists", "train lists_linear", "train lr"),
            *("validation_lists", "choose", "refit", "lists", "evaluate", "serving_check", "gate"),
        ),
        "success",
    )
    run = first.chain.runs["model_training"]
    training_set, asked = (stack.xcom(run, task) for task in ("training_set", "questions"))
    candidate = candidate_folder(Namespace(stack.state, NAMESPACE), first.verdict["run_id"])
    lists = read_json(candidate / "evaluation.json")["lists"]
    assert lists == read_json(candidate / "lists.json")
    assert (lists["questions_id"], lists["training_set_id"]) == (asked["questions"], training_set["training_set"])
    assert lists["tables"], lists["sentence"]
    rows = [row["list"] for row in lists["tables"][0]["rows"]]
    assert {"candidate", "unranked", "most liked", "EASE"} <= set(rows)
    assert "champion" not in rows  # nothing was served then
    logged = stack.http.get(
        f"{stack.settings.mlflow_uri}/api/2.0/mlflow/runs/get", params={"run_id": first.verdict["run_id"]}
    ).json()["run"]["data"]
    metrics = {metric["key"]: metric["value"] for metric in logged["metrics"]}
    assert metrics["lists_candidate_ndcg_at_10"] == lists["tables"][0]["rows"][0]["ndcg_at_10"]
    assert "lists_best_simple_ndcg_at_10" in metrics


def test_the_report_of_the_checks_opens_from_its_task_for_who_is_logged_in(first, stack):
    run = first.chain.runs["feature_refresh"]
    airflow = stack.airflow()
    try:
        url = airflow.links(run, "check")["Report"]
    finally:
        airflow.close()
    assert url.startswith(f"{stack.settings.airflow_uri.rstrip('/')}/reports/{NAMESPACE}/checks/")
    assert httpx.get(url).status_code == HTTPStatus.UNAUTHORIZED
    login = {"username": stack.settings.airflow_user, "password": stack.settings.airflow_password}
    with httpx.Client(base_url=stack.settings.airflow_uri) as browser:
        token = browser.post("/auth/token", json=login).json()["access_token"]
        page = browser.get(url, headers={"Cookie": f"_token={token}"})
    assert page.status_code == HTTPStatus.OK
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert "<title>Data checks: " in page.text


def test_the_interval_travels_with_the_assets(first):
    key = f"{NAMESPACE}|{first.snapshot['cutoff']}"
    assert [first.chain.runs[dag].partition_key for dag in ("model_training", "model_rollout")] == [key, key]


def test_the_first_candidate_becomes_champion_and_is_what_is_served(first):
    assert first.verdict["decision"] == "promote"
    alias, served, release = first.serving
    assert alias == release == first.verdict["version"]
    assert served == {release: "AVAILABLE"}


def test_the_same_again_by_a_mapping_has_the_same_data_and_features_and_still_triggers_what_follows(
    first, second, stack
):
    assert second.checksums == first.checksums
    assert stack.xcom(second.chain.runs["feature_refresh"], "features")["changed_partitions"] == 0
    assert second.snapshot == first.snapshot
    assert second.chain.runs["model_training"].run_id != first.chain.runs["model_training"].run_id


def test_a_tie_keeps_the_champion_and_the_rollout_stops_with_the_reason(first, second):
    assert second.verdict["decision"] == "tie"
    assert second.serving == first.serving
    assert states(second, "model_rollout") == dict.fromkeys(
        ("verdict", "publish", "replay", "canary", "compare", "promote"), "skipped"
    )


def test_the_demo_reports_what_a_person_wants_to_see(second, stack):
    for words in (
        "the champion stays",
        "candidate",
        "champion",
        "popularity",
        "lr",
        "Lists: ",
        "unranked",
        "most liked, 7 days",
        "EASE",
        "curl",
        stack.settings.airflow_uri,
        stack.settings.airflow_password,
        f"/reports/{NAMESPACE}/checks/",
        f"/reports/{NAMESPACE}/embeddings/",
    ):
        assert words in second.output, words


def test_a_backfill_touches_neither_redis_nor_training(backfill):
    tasks = {task.task: task.state for task in backfill.chain.tasks["feature_refresh"]}
    assert tasks == {
        "land": "success",
        "ingest": "success",
        "check": "success",
        "features": "success",
        "embeddings": "success",
        "channels": "success",
        "registry": "success",
        "materialize": "skipped",
        "verify_online": "skipped",
        "publish": "skipped",
    }
    assert backfill.online_after == backfill.online_before
    assert backfill.latest_before
    assert backfill.latest_after == backfill.latest_before
    assert backfill.snapshot_after == backfill.snapshot_before
    assert backfill.trainings_after == backfill.trainings_before


def users(stack, count):
    lines = (stack.source / "u.data").read_text().splitlines()
    return sorted({line.split("\t")[0] for line in lines}, key=int)[:count]


def test_recommendations_are_ranked_new_to_the_user_and_reasoned(stack, backfill):
    policy = load_policy(Serving(stack.state), stack.release())
    assert policy.quotas, "the promotion brought them along"
    seen = {}
    for line in (stack.source / "u.data").read_text().splitlines():
        user, item, *_ = line.split("\t")
        seen.setdefault(user, set()).add(item)
    for user in users(stack, 5):
        answer = stack.recommend(user, k=10)
        assert answer["degraded"] == []
        items = answer["items"]
        assert len(items) == 10
        assert not {item["item_id"] for item in items} & seen[user]
        scores = [item["score"] for item in items]
        assert policy.reranking.share or scores == sorted(scores, reverse=True)
        assert all(item["reason"] and item["title"] for item in items)


def test_one_users_hash_in_redis_is_what_that_users_scores_come_from(stack, backfill):
    user, other, *_ = users(stack, 9)
    before, others = stack.recommend(user, k=20), stack.recommend(other, k=20)
    with stack.redis() as client:
        keys = [key for key in client.scan_iter(count=1000) if client.type(key) == b"hash"]
        mine = next(key for key in keys if user.encode() in key and key.endswith(b"made_up") and _is_of(key, user))
        theirs = next(key for key in keys if _is_of(key, other))
        kept = client.hgetall(mine)
        try:
            client.hset(mine, mapping=client.hgetall(theirs))
            changed = stack.recommend(user, k=20)
        finally:
            client.delete(mine)
            client.hset(mine, mapping=kept)
    assert [item["score"] for item in changed["items"]] != [item["score"] for item in before["items"]]
    same = stack.recommend(other, k=20)
    assert [item["score"] for item in same["items"]] == [item["score"] for item in others["items"]]


def _is_of(key, user):
    """Feast's key: the entity's name, its value, then the project (docs/feast-redis-layout.md)."""
    value = user.encode()
    return b"user_id" in key and len(value).to_bytes(4, "little") + value + b"made_up" in key


def test_without_the_model_server_the_order_and_degraded_change_and_both_come_back(stack, backfill):
    user = users(stack, 1)[0]
    ranked = stack.recommend(user, k=20)
    stopped = stack.run("stop", "model-server")
    assert stopped.returncode == 0, stopped.stderr
    try:
        unranked = stack.recommend(user, k=20)
        assert "model_server" in " ".join(unranked["degraded"])
        assert [item["item_id"] for item in unranked["items"]] != [item["item_id"] for item in ranked["items"]]
        assert all(item["score"] is None for item in unranked["items"])
    finally:
        started = stack.run("start", "model-server")
    assert started.returncode == 0, started.stderr
    wait_until(lambda: stack.recommend(user, k=20)["degraded"] == [], 20, "ranked again")


def test_a_model_server_killed_with_a_candidate_loaded_serves_the_old_version_afterwards(stack, backfill):
    old = stack.serving()
    version = "2"
    assert version not in old[1]
    stack.http.post(
        f"{stack.settings.mlflow_uri}/api/2.0/mlflow/model-versions/set-tag",
        json={"name": MODEL, "version": version, "key": "kestrel.decision", "value": "promote"},
    ).raise_for_status()
    published = stack.job("serving.rollout", "publish", "--namespace", NAMESPACE, "--version", version)
    assert published.returncode == 0, published.stderr
    assert stack.served_versions() == {**old[1], version: "AVAILABLE"}
    psutil.Process(Supervisor(Places(stack.state)).programs()["model-server"].pid).kill()

    def serves_old_again():
        try:
            return stack.serving() == old
        except Exception:  # noqa: BLE001 - it is being restarted
            return False

    wait_until(serves_old_again, 60, "the old version after the kill")
    wait_until(lambda: stack.recommend(users(stack, 1)[0])["degraded"] == [], 20, "ranked by the old version")


@pytest.mark.parametrize(
    ("dag", "conf", "sentence"),
    [
        ("feature_refresh", {"namespace": "refused", "sorce": "mine"}, "received 'sorce'; did you mean 'source'?"),
        ("feature_refresh", {"namespace": "refused", "cutoff": "2999-01-01"}, "2999-01-01T00:00:00Z lies after the cl"),
        ("model_training", {"namespace": "refused"}, "fill in 'Cutoff' in the trigger form"),
        ("model_rollout", {"namespace": "refused"}, "fill in 'Version' in the trigger form"),
    ],
)
def test_a_run_that_no_job_can_be_started_with_fails_at_once(stack, backfill, dag, conf, sentence):
    run, (first_task, *others), log = stack.ended(dag, conf)
    assert (run.state, first_task.state, first_task.attempt) == ("failed", "failed", 1)
    assert {(task.state, task.attempt) for task in others} <= {("upstream_failed", 0), ("failed", 1)}
    assert sentence in log
    assert not Namespace(stack.state, "refused").root.exists()


def test_a_namespace_that_the_command_line_refuses_starts_no_run(stack, backfill):
    runs = stack.run_count("feature_refresh")
    with pytest.raises(LocalError, match=r"HTTP 400: .*does not match"):
        stack.ended("feature_refresh", {"namespace": "refused\n"})
    assert stack.run_count("feature_refresh") == runs


def test_a_feature_that_knows_the_label_is_held_for_a_person(stack, leaked):
    assert leaked["decision"] == "hold", leaked["reason"]
    assert "look for a feature that knows the label" in leaked["reason"]
    assert not Serving(stack.state).current_release(LEAKED).exists(), "nothing of it is served"


def test_data_that_does_not_pass_leaves_the_recommender_with_what_it_has(stack, backfill, tmp_path):
    user = users(stack, 1)[0]
    before = stack.recommend(user, k=10)
    bad = shutil.copytree(stack.source, tmp_path / "bad")
    lines = (bad / "u.data").read_text().splitlines()
    half = [line if number % 2 else line.replace("\t", "\tx", 1) for number, line in enumerate(lines)]
    (bad / "u.data").write_text("\n".join(half) + "\n")
    demo = stack.run("demo", KESTREL_ARG_DATA=str(bad), KESTREL_ARG_NAMESPACE="bad")
    assert demo.returncode == 1
    assert f"The recommender answers for {NAMESPACE} until the data of bad has passed" in demo.stderr
    assert "feature_refresh: task ingest failed at attempt 1" in demo.stderr
    assert stack.recommend(user, k=10)["items"] == before["items"]
    assert f"KESTREL_NAMESPACE={NAMESPACE}\n" in (stack.state / "settings.env").read_text()


def test_requests_that_make_no_sense_get_a_helpful_body(stack, backfill):
    base = stack.settings.recommender_uri
    unknown = stack.recommend("nobody-knows-me", k=5)
    assert len(unknown["items"]) == 5
    assert "unknown_user" in " ".join(unknown["degraded"])
    missing = stack.http.get(f"{base}/similar/no-such-item")
    assert missing.status_code == 404
    assert "no-such-item" in missing.text
    for k in ("0", "-1", "1000000", "ten"):
        refused = stack.http.get(f"{base}/recommend/1", params={"k": k})
        assert refused.status_code == 422
        assert k in refused.text


def test_down_leaves_no_process_behind_even_with_a_killed_supervisor(stack, backfill):
    """Runs against the shared stack; `standing` brings it up for whoever comes next."""
    psutil.Process(Supervisor(Places(stack.state)).pid).kill()
    down = stack.run("down")
    assert down.returncode == 0, down.stderr
    assert stack_processes(stack.state) == []
    stack.stand()
    wait_until(lambda: stack.recommend(users(stack, 1)[0])["degraded"] == [], 60, "serving again")
