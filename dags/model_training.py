"""Train, evaluate, judge.

Started by the asset **features**. `training_set` joins every label to the features strictly before it. `questions` asks
users at midnights of the past; the recommender's own recall answers those that models may learn from in `candidates`,
and `list_rows` makes rows of them: what was offered, and what the user then liked. `specs` says what is trained, and
`train` does, one spec at a time. `validation_lists` measures the lists of every trained spec at a midnight that it has
not learned from, and `choose` takes the best for the candidate. `refit` fits the champion's spec again where the
champion has learned from what the gates will ask. `lists` measures the candidate's and the champion's lists at a later
midnight that nothing was chosen by. `evaluate` measures candidate, champion and baselines on the same later rows, and
logs the lists' figures beside theirs; `serving_check` compares a model server's scores with the offline ones, with no
heavy task beside it, for it measures latency; `gate` decides, registers the version with the alias `candidate`, and
sends the asset **verdict**.

A log that is too short for the past to be asked skips `candidates` and `list_rows`: specs that learn from them are not
trained then. The run ends green whatever the verdict: a rejection is a result. Both reports lie in the MLflow run.
"""

from airflow.sdk import DAG, Param, PartitionedAssetTimetable

from dags._jobs import JobOperator
from dags._policy import ALONE, FEATURES, HEAVY, NAMESPACE_PARAM, TRAINING, VERDICT, shared

INTERVAL = "{{ partition(partition_key, params) }}"
NAMESPACE = "{{ partition(partition_key, params).namespace }}"
CUTOFF = "{{ format_cutoff(partition(partition_key, params).cutoff) }}"
TRAINING_SET = "{{ ti.xcom_pull(task_ids='training_set')['training_set'] }}"
QUESTIONS = "{{ ti.xcom_pull(task_ids='questions')['questions'] }}"
CANDIDATES = "{{ (ti.xcom_pull(task_ids='candidates') or {}).get('candidates', '') }}"
LIST_ROWS = "{{ (ti.xcom_pull(task_ids='list_rows') or {}).get('training_set', '') }}"
FOLDER = "{{ candidate_folder(partition(partition_key, params).namespace, run_id) }}"
COMPETING = "{{ ti.xcom_pull(task_ids='train') | selectattr('trained') | selectattr('competes') | list | tojson }}"
SAVED_MODEL = "{{ ti.xcom_pull(task_ids='choose')['saved_model'] }}"
RUN = {"namespace": NAMESPACE, "training-set": TRAINING_SET, "run-key": "{{ run_key(run_id) }}"}

with DAG(
    dag_id="model_training",
    schedule=PartitionedAssetTimetable(assets=FEATURES),
    tags=["kestrel", "model"],
    **shared(__doc__),
    params={
        "namespace": NAMESPACE_PARAM,
        "cutoff": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Cutoff",
            description="Train on events before this midnight UTC. Only for runs by hand: the asset brings its own.",
        ),
        "specs": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Specs",
            description="What to train, a name of models/specs/ranking.yaml a line; all of them where this is empty.",
        ),
        "configs": Param(
            {},
            type="object",
            title="Configs",
            description='Other configs for this run: {"deepfm": {"hidden": [64], "fit": {"epochs": 5}}}.',
        ),
    },
):
    training_set = JobOperator(
        task_id="training_set",
        module="pipelines",
        command="training-set",
        options={"namespace": NAMESPACE, "cutoff": CUTOFF},
        **HEAVY,
        doc_md="Labels joined to the features strictly before them; the splits by time; the fitted transforms.",
    )
    questions = JobOperator(
        task_id="questions",
        module="pipelines",
        command="questions",
        options={"namespace": NAMESPACE, "cutoff": CUTOFF, "training-set": TRAINING_SET},
        **HEAVY,
        doc_md="Whom to ask at a midnight that the models do not know of, what was known then, what they liked next.",
    )
    candidates = JobOperator(
        task_id="candidates",
        module="serving.lists",
        command="candidates",
        options={"namespace": NAMESPACE, "questions": QUESTIONS},
        **HEAVY,
        doc_md="What the recommender's own recall would have offered at each of these midnights, by fitted quotas.",
    )
    list_rows = JobOperator(
        task_id="list_rows",
        module="pipelines",
        command="training-set",
        options={
            "namespace": NAMESPACE,
            "cutoff": CUTOFF,
            "kind": "lists",
            "candidates": CANDIDATES,
        },
        **HEAVY,
        doc_md="What was offered, joined to the features strictly before the question, and what the user then liked.",
    )
    specs = JobOperator(
        task_id="specs",
        module="models",
        command="specs",
        options={
            "only": "{{ params.specs | tojson if params.specs else '' }}",
            "configs": "{{ params.configs | tojson if params.configs else '' }}",
        },
        returns="specs",
        partition_key=INTERVAL,  # a run without one fails here, too, before anything starts
        doc_md="What this run trains: every spec with its whole config. A wrong file of gates fails here, too.",
    )
    train = JobOperator.partial(
        task_id="train",
        module="models",
        command="train",
        options={**RUN, "lists": LIST_ROWS, "spec": "{{ task.each | tojson }}"},
        map_index_template="{{ task.each.name }}",
        **TRAINING,
        trigger_rule="none_failed",  # without rows of lists the other specs are trained
        doc_md="Fit one spec and log it as an MLflow run.",
    ).expand(each=specs.output)
    validation_lists = JobOperator(
        task_id="validation_lists",
        module="serving.lists",
        command="compare",
        options={
            "namespace": NAMESPACE,
            "questions": QUESTIONS,
            "candidates": CANDIDATES,
            "models": COMPETING,
            "out": f"{FOLDER}/validation_lists.json",
        },
        **HEAVY,
        doc_md="The lists that users would be shown by each trained spec, re-ranked, before the midnight that decides.",
    )
    choose = JobOperator(
        task_id="choose",
        module="models",
        command="choose",
        options={
            **RUN,
            "lists": LIST_ROWS,
            "validation-lists": f"{FOLDER}/validation_lists.json",
            "specs": "{{ ti.xcom_pull(task_ids='specs') | tojson }}",
            "choose-by": "{{ ti.xcom_pull(task_ids='specs', key='result')['choose_by'] }}",
            "choose-without-lists": "{{ ti.xcom_pull(task_ids='specs', key='result')['choose_without_lists'] }}",
        },
        doc_md="The spec with the best validation lists is the candidate; no later answer has been looked at.",
    )
    refit = JobOperator(
        task_id="refit",
        module="models",
        command="refit",
        options={**RUN, "questions": QUESTIONS},
        **TRAINING,
        doc_md="The champion's own spec, fitted on this run's rows: where it has learned from what the gates ask.",
    )
    lists = JobOperator(
        task_id="lists",
        module="serving.lists",
        command="measure",
        options={
            "namespace": NAMESPACE,
            "questions": QUESTIONS,
            "saved-model": SAVED_MODEL,
            "training-set": "{{ ti.xcom_pull(task_ids='choose')['training_set'] }}",
            "policy": "{{ ti.xcom_pull(task_ids='choose')['policy'] }}",
            "refit": f"{FOLDER}/refit.json",
            "out": f"{FOLDER}/lists.json",
        },
        **HEAVY,
        doc_md="The lists that the candidate's users would be shown, beside simple lists and what they liked next.",
    )
    evaluate = JobOperator(
        task_id="evaluate",
        module="models",
        command="evaluate",
        options=RUN,
        **HEAVY,
        doc_md="Candidate, champion and baselines on the same test window; the page of the measured lists.",
    )
    serving_check = JobOperator(
        task_id="serving_check",
        module="serving.model_server",
        command="check",
        options={
            "saved-model": SAVED_MODEL,
            "golden": f"{FOLDER}/golden.json",
            "out": f"{FOLDER}/serving_check.json",
        },
        **ALONE,
        doc_md="A model server on a private port: do its scores equal the offline ones, and how fast is it?",
    )
    gate = JobOperator(
        task_id="gate",
        module="models",
        command="gate",
        options=RUN,
        emits=VERDICT,
        partition_key=INTERVAL,
        doc_md="Promote, tie or reject, with the report in MLflow.",
    )
    training_set >> questions >> candidates >> list_rows >> train
    train >> validation_lists >> choose >> refit >> lists >> evaluate >> serving_check >> gate
