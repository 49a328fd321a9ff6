"""What a container of the data plane runs: the command it is given or, asked by Spark on Kubernetes, an executor.

Spark's driver starts executors with the one word `executor` and the rest in the environment. The images that Spark
publishes have a script for that; PySpark's wheel, which this image is made of, has none. Source of names and command:
Apache Spark 4.3, BasicExecutorFeatureStep.scala and the entrypoint.sh of its images.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXECUTOR = "executor"
_BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_JAVA_OPTION = "SPARK_JAVA_OPT_"
_ARGUMENTS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return what to run; KeyError names what Spark should have put into the environment and did not."""
    if list(arguments) != [EXECUTOR]:
        return list(arguments)
    from pyspark.find_spark_home import _find_spark_home  # noqa: PLC0415 - only executors need Spark

    numbers = sorted(int(name.removeprefix(_JAVA_OPTION)) for name in environ if name.startswith(_JAVA_OPTION))
    memory = environ["SPARK_EXECUTOR_MEMORY"]
    classes = [environ.get("SPARK_CLASSPATH", ""), f"{_find_spark_home()}/jars/*"]
    return [
        f"{environ['JAVA_HOME']}/bin/java",
        *(environ[f"{_JAVA_OPTION}{number}"] for number in numbers),
        f"-Xms{memory}",
        f"-Xmx{memory}",
        "-cp",
        ":".join(path for path in classes if path),
        _BACKEND,
        *(part for option, name in _ARGUMENTS.items() for part in (option, environ[name])),
    ]


if __name__ == "__main__":
    given = command(sys.argv[1:], os.environ)
    if not given:
        sys.exit("expected a command, or `executor` from Spark on Kubernetes; received nothing")
    os.execvp(given[0], given)  # noqa: S606 - the container's own command, by its arguments
