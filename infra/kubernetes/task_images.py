"""With KubernetesExecutor each job runs in a pod of its plane's image: a policy that Airflow applies to every task.

`airflow_local_settings.py` has it from here (infra/kubernetes/values/airflow.yaml). Registry and tag are those of the
image that Airflow itself runs in, so that one value of the chart moves all images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PLANES: Mapping[str, str] = {
    "pipelines": "data",
    "models": "model",
    "serving.model_server": "model-server",
    "serving.lists": "model-server",
    "serving.rollout": "rollout",
}
"""The package of a job → its plane's extra, which is its image's name too.

Measured lists start a model server beside the recommender's engine: its image has the recommender's extra as well.
"""
DATA_PLANE = "data"
SPARK_ACCOUNT = "kestrel-spark"
"""The service account of base/spark.yaml."""


def plane_image(repository: str, tag: str, plane: str) -> str:
    """Return a plane's image: `registry/kestrel/orchestrator`, `0.1.0`, `data` → `registry/kestrel/data:0.1.0`."""
    folder, slash, _ = repository.rpartition("/")
    return f"{folder}{slash}{plane}:{tag}"


def task_policy(task: Any) -> None:  # noqa: ANN401 - an operator; importing Airflow's type would cost seconds
    """Give a job's task the image of its plane, and the label that the network policies know it by.

    A task that states an `executor_config` of its own keeps it.
    """
    plane = PLANES.get(getattr(task, "module", ""))
    if plane is None or task.executor_config:
        return
    from airflow.configuration import conf  # noqa: PLC0415 - Airflow alone calls this
    from kubernetes.client import models  # noqa: PLC0415 - as above

    section = "kubernetes_executor"
    image = plane_image(
        conf.get_mandatory_value(section, "worker_container_repository"),
        conf.get_mandatory_value(section, "worker_container_tag"),
        plane,
    )
    container = models.V1Container(name="base", image=image)
    spec = models.V1PodSpec(containers=[container])
    if plane == DATA_PLANE:
        # Such a pod may be Spark's driver, whose executors are pods: they call it by its address, no name resolves.
        address = models.V1EnvVarSource(field_ref=models.V1ObjectFieldSelector(field_path="status.podIP"))
        container.env = [models.V1EnvVar(name="SPARK_LOCAL_HOSTNAME", value_from=address)]
        spec.service_account_name, spec.automount_service_account_token = SPARK_ACCOUNT, True
    task.executor_config = {
        "pod_override": models.V1Pod(metadata=models.V1ObjectMeta(labels={"kestrel/plane": plane}), spec=spec)
    }
