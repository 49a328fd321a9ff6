"""Roll a verdict out.

Started by the asset **verdict**. `verdict` stops the run, visibly and with the reason, unless the gates said *promote*
beside the champion that is in force still. `publish` puts the SavedModel beside the served one, `replay` sends it
requests with known answers, `canary` gives it a share of the recommender's requests as well, `compare` sends recorded
requests to it and to the served one, `promote` makes it the one that is served and moves the aliases `champion` and
`previous`. Whatever fails, the old version keeps serving.
"""

from airflow.sdk import DAG, Param, PartitionedAssetTimetable

from dags._jobs import JobOperator
from dags._policy import ALONE, NAMESPACE_PARAM, VERDICT, shared
from feature_repo.contracts.served_models import VERSION_MAX

ONCE = {"promote": {"key": "{{ run_key(run_id) }}"}}
"""A late retry of a promotion must not undo the rollback that came in between."""
STEPS = {
    "verdict": "Go on only if the gates said promote, beside this champion; otherwise the reason stands here.",
    "publish": "Verified SavedModel → model server, loaded beside the served version.",
    "replay": "Golden requests: the new version must give the scores that the model plane wrote down.",
    "canary": "The label canary; the recommender sends it a share of its requests, and shows nobody the scores.",
    "compare": "Recorded requests to the canary and to the served version: errors and latency decide, scores are told.",
    "promote": "The served version, the release manifest, and the aliases champion and previous.",
}

with DAG(
    dag_id="model_rollout",
    schedule=PartitionedAssetTimetable(assets=VERDICT),
    tags=["kestrel", "serving"],
    **shared(__doc__),
    params={
        "namespace": NAMESPACE_PARAM,
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=VERSION_MAX,
            title="Version",
            description="Registered version to roll out. Only for runs by hand: the verdict brings its own.",
        ),
    },
):
    previous = None
    for step, meaning in STEPS.items():
        task = JobOperator(
            task_id=step,
            module="serving.rollout",
            command=step,
            options={
                "namespace": "{{ namespace_of(partition_key, params) }}",
                "version": "{{ verdict_version(triggering_asset_events, params) }}",
                **ONCE.get(step, {}),
            },
            **(ALONE if step == "compare" else {}),
            doc_md=meaning,
        )
        if previous:
            previous >> task
        previous = task
