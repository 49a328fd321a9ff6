"""Features up to a cutoff, offline and online.

`land` brings what users did since the last run from the stream into the lake; `ingest` checks the source and writes
canonical events, items and users beside it; bad rows go to the quarantine with a reason.
`check` judges what then lies in the lake, writes a report (the task's button *Report*) and the daily statistics, and
ends the run if nothing may be computed from such data. Spark computes the features (`features`, `embeddings`), DuckDB
and NumPy fit what recall reads off likes (`channels`), Feast takes features to Redis (`materialize`), `verify_online`
reads a sample back, and `publish` switches the online side over and sends the asset **features**, which starts
*model_training*.

**Running it again** for the same interval changes nothing and still triggers what follows. **A backfill** (a cutoff
before the one that is online) recomputes the offline tables; its `materialize` is skipped, so neither Redis nor any
training is touched.
"""

from airflow.sdk import DAG, Param

from dags._jobs import JobOperator, ReportingJobOperator
from dags._policy import FEATURES, HEAVY, NAMESPACE_PARAM, refresh_schedule, shared

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
            description="Folder, zip or file: an official MovieLens release, or what the mapping says. A relative path "
            "starts at the state folder.",
        ),
        "source_mapping": Param(
            None,
            type=["null", "string"],
            title="Mapping",
            description="Bring your own events: the YAML that says what the source's columns mean, or the name of one "
            "that comes with Kestrel (online-retail). Empty: the source is MovieLens.",
        ),
        "mode": Param(
            "whole",
            enum=["whole", "part", "replace"],
            title="Mode",
            description="whole: the source is all there is. part: merge it into the lake, such as a day's file. "
            "replace: another data set, in the place of the namespace's own.",
        ),
        "cutoff": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Cutoff",
            description="Exclusive end of the interval (midnight UTC), not after the clock. Empty: the midnight after "
            "the last event.",
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
    land = JobOperator(
        task_id="land",
        module="pipelines",
        command="land",
        options={"namespace": "{{ params.namespace }}"},
        doc_md="What came by the stream → the lake, each event once, in the partition of its day.",
    )
    ingest = ReportingJobOperator(
        task_id="ingest",
        module="pipelines",
        command="ingest",
        options={
            "namespace": "{{ params.namespace }}",
            "source": "{{ source_path(params.source) }}",
            "cutoff": "{{ cutoff_or_nothing(params.cutoff, dag_run.run_type, data_interval_end | default(none)) }}",
            "clock": "{{ params.clock or '' }}",
            "mapping": "{{ mapping_path(params.source_mapping) }}",
            "mode": "{{ params.mode }}",
        },
        **HEAVY,
        doc_md="Source → checked, canonical events, items and users; refused rows → quarantine; a report if too many.",
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
        **HEAVY,
        doc_md="Every feature group of the contracts, by Spark: the state after each event.",
    )
    embeddings = ReportingJobOperator(
        task_id="embeddings",
        module="pipelines",
        command="embeddings",
        options=INTERVAL,
        **HEAVY,
        doc_md="Item and user embeddings for recall, by Spark: dated snapshots, and a report with nearest neighbours.",
    )
    channels = JobOperator(
        task_id="channels",
        module="pipelines",
        command="channels",
        options=INTERVAL,
        **HEAVY,
        doc_md="EASE, ItemCF and most liked, fitted on likes for recall: dated tables, variants chosen on validation.",
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
    verify_online = JobOperator(
        task_id="verify_online",
        module="pipelines",
        command="verify-online",
        options={"namespace": "{{ params.namespace }}"},
        doc_md="What Redis returns of sampled users and items is what the offline store says: no mismatch, or no news.",
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
    land >> ingest >> check >> [features, embeddings, channels, registry]
    [features, embeddings, channels, registry] >> materialize >> verify_online >> publish
