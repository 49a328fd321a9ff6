"""No library may bring one plane's engine into another: the linter sees imports in files only."""

import os
import subprocess
import sys

from feature_repo.contracts.places import REPOSITORY

PROGRAM = """
from feature_repo.contracts.isolation import keep_out
keep_out("feast")
import warnings
warnings.simplefilter("error", append=True)
import mlflow.tracking.request_header.registry, sys
assert sys.modules["feast"] is None
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    given = os.environ | environment
    return subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, check=False)


def test_what_is_kept_out_is_not_found_and_nobody_is_warned():
    done = python("-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_rollout_asks_the_registry_without_feast(tmp_path):
    nobody = {"KESTREL_MLFLOW_URI": "http://127.0.0.1:9", "KESTREL_MODEL_SERVER_GRPC": "127.0.0.1:9"}
    asked = ("-X", "importtime", "-m", "serving.rollout", "status", "--namespace", "nobody")
    done = python(*asked, KESTREL_STATE=str(tmp_path), **nobody)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "mlflow.tracking.request_header.registry" in imported
    assert "feast" not in imported


WITHOUT_KERAS = """
from feature_repo.contracts.isolation import keep_out
keep_out("keras")
import sys
import serving.model_server.server
assert "tensorflow" in sys.modules
assert not {"sklearn", "matplotlib", "keras.src"} & sys.modules.keys()
"""


def test_tensorflow_serves_without_keras():
    done = python("-c", WITHOUT_KERAS)
    assert done.returncode == 0, done.stderr


CHECKED = """
import feast.types, typeguard
try:
    feast.Field(name=5, dtype=feast.types.String)
    checked = False
except typeguard.TypeCheckError:
    checked = True
assert checked is {}
"""
QUICKLY = "from pipelines.feast_store.quick_import import import_without_type_checks as quickly; quickly()\n"


def test_jobs_import_feast_without_its_type_checks_which_it_still_has():
    for program, checked in ((CHECKED, True), (QUICKLY + CHECKED, False)):
        done = python("-c", program.format(checked))
        assert done.returncode == 0, done.stderr
