"""Features up to a cutoff, offline and online.

`ingest` checks the source and lands canonical events, items and users; bad rows go to the quarantine with a reason.
`check` judges what then lies in the lake, writes a report (the link *Report* in the task's details) and the daily
statistics, and ends the run if nothing may be computed from such data. Spark computes the features (`features`,
`embeddings`), Feast takes them to Redis (`materialize`), and `publish` switches the online side over and sends the
asset **features**, which starts *model_training*.

**Running it again** for the same interval changes nothing and still triggers what follows. **A backfill** (a cutoff
before the one that is online) recomputes the offline tables; its `materialize` is skipped, so neither Redis nor any
training is touched.
"""

from airflow.sdk import DAG, Param

from dags._jobs import JobOperator, ReportingJobOperator
from dags._policy import FEATURES, NAMESPACE_PARAM, refresh_schedule, shared

INTERVAL = {
    "namespace": "{{ params.namespace }}",
    "cutoff": "{{ ti.xcom_pull(task_ids='ingest')['cutoff'] }}",
}

with DAG(
    dag_id="feature_refresh",
    schedule=refresh_schedule(),
    tags=["kestrel", "data"],
    **shared(__doc__),
    params={
        "namespace": NAMESPACE_PARAM,
        "source": Param(
            "sources/ml-100k",
            type="string",
            minLength=1,
            title="Source",
            description="Folder or zip of an official MovieLens release. A relative path starts at the state folder.",
        ),
        "cutoff": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Cutoff",
            description="Exclusive end of the interval (midnight UTC). Empty: the midnight after the last event.",
        ),
        "start": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Start",
            description="Check, and rewrite, from this day on only. Empty: check the last days, rewrite all.",
        ),
        "clock": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Clock",
            description="The moment after which an event lies in the future and is refused. Empty: now.",
        ),
    },
):
    ingest = JobOperator(
        task_id="ingest",
        module="pipelines",
        command="ingest",
        options={
            "namespace": "{{ params.namespace }}",
            "source": "{{ source_path(params.source) }}",
            "cutoff": "{{ cutoff_or_nothing(params.cutoff, dag_run.run_type, data_interval_end | default(none)) }}",
            "clock": "{{ params.clock or '' }}",
        },
        doc_md="Source → checked, canonical events, items and users; refused rows → quarantine.",
    )
    check = ReportingJobOperator(
        task_id="check",
        module="pipelines",
        command="check",
        options={**INTERVAL, "start": "{{ params.start or '' }}"},
        doc_md="The lake's rows, volume and distributions against what is declared; daily statistics; a report.",
    )
    features = JobOperator(
        task_id="features",
        module="pipelines",
        command="features",
        options={**INTERVAL, "start": "{{ params.start or '' }}"},
        doc_md="Every feature group of the contracts, by Spark: the state after each event.",
    )
    embeddings = JobOperator(
        task_id="embeddings",
        module="pipelines",
        command="embeddings",
        options=INTERVAL,
        doc_md="item2vec by Spark MLlib: a dated snapshot for recall.",
    )
    registry = JobOperator(
        task_id="registry",
        module="pipelines",
        command="registry",
        options={"namespace": "{{ params.namespace }}"},
        doc_md="The contracts' feature views and services → Feast's registry.",
    )
    materialize = JobOperator(
        task_id="materialize",
        module="pipelines",
        command="materialize",
        options=INTERVAL,
        doc_md="Latest features → Redis. Skipped when a newer interval is online.",
    )
    publish = JobOperator(
        task_id="publish",
        module="pipelines",
        command="publish",
        options=INTERVAL,
        emits=FEATURES,
        partition_key="{{ params.namespace }}|{{ ti.xcom_pull(task_ids='ingest')['cutoff'] }}",
        doc_md="Item catalogue and snapshot manifest; the online side switches to it.",
    )
    ingest >> check >> [features, embeddings, registry]
    [features, registry] >> materialize
    [materialize, embeddings] >> publish
