"""Go back to the model that served before.

One task, started by hand: the previous version, or the one named in the form, serves again within seconds; the
registry's aliases `champion` and `previous` follow. A retry of the task does not go back once more.
"""

from airflow.sdk import DAG, Param

from dags._jobs import JobOperator
from dags._policy import NAMESPACE_PARAM, shared
from feature_repo.contracts.served_models import VERSION_MAX

with DAG(
    dag_id="model_rollback",
    schedule=None,
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
            description="Version to go back to: promoted once, still on disk. Empty: the one before the served one.",
        ),
        "reason": Param(
            "",
            type="string",
            title="Reason",
            description="Why, in one sentence. It stands in the release and in `python -m serving.rollout status`.",
        ),
    },
):
    JobOperator(
        task_id="rollback",
        module="serving.rollout",
        command="rollback",
        options={
            "namespace": "{{ params.namespace }}",
            "to": "{{ (params.version or 0) | int or '' }}",
            "reason": "{{ params.reason }}",
            "key": "{{ run_key(run_id) }}",
        },
        doc_md="Configuration, label, release, aliases: what served before serves again.",
    )
