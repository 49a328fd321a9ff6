"""The model plane at a real MLflow server in which things were deleted; nothing is trained."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from feature_repo.contracts.mlflow_commands import DATABASE
from models import registry, tracking
from models.errors import DeletedInMlflowError, TrackingRefusedError
from tests.mlflow_server import mlflow_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def server(folder):
    with mlflow_server(folder) as uri:
        yield uri


@pytest.fixture
def client(server):
    return tracking.connect(server)


def _logged_model(client, namespace):
    """Return what `register` takes of a run and the model that it logged."""
    experiment = tracking.experiment_id(client, namespace)
    run_id = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name="deepfm", source_run_id=run_id)
    return f"{namespace}.ranking", model.model_id, run_id


def test_a_run_is_registered_once_unless_its_number_is_another_models(client):
    name, model_id, run_id = _logged_model(client, "numbers")

    def register(served):
        return registry.register(client, name, model_id, run_id, tags={"kestrel.decision": "promote"}, served=served)

    assert register({}) == "1"
    assert register({1: run_id, 4: "another"}) == "1"
    assert register({1: "", 4: "another"}) == "1", "a folder whose run is unknown may be its own"
    assert register({1: "another", 5: "another", 7: ""}) == "8"
    assert register({1: "another", 5: "another", 7: "", 8: run_id}) == "8"
    assert client.get_model_version(name, "8").tags == {"kestrel.decision": "promote"}


def test_a_registered_model_that_was_deleted_goes_on_above_what_is_served(client):
    name, model_id, run_id = _logged_model(client, "anew")
    assert registry.register(client, name, model_id, run_id, tags={}, served={}) == "1"
    client.delete_registered_model(name)
    assert registry.register(client, name, model_id, run_id, tags={}, served={1: "another", 3: ""}) == "4"
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert (str(version.version), version.run_id) == ("4", run_id)


def _obey(refusal, folder, number=0, database=""):
    """Run a command that stands between back quotes in a terminal elsewhere, as a user pastes it."""
    command = re.findall("`([^`]+)`", str(refusal))[number].replace(DATABASE, database)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    terminal = ["sh", "-c", command]
    subprocess.run(terminal, check=True, cwd=folder, env={**environment, "PATH": os.defpath}, capture_output=True)
    assert not list(folder.iterdir()), "it worked on a file of its own"


def test_a_deleted_experiment_or_run_comes_back_by_the_command_of_the_refusal(client, tmp_path):
    experiment = tracking.experiment_id(client, "deleted")
    run_id = client.create_run(experiment).info.run_id
    client.delete_experiment(experiment)
    named = f"restore --experiment-id {experiment}`, or remove it for good"
    with pytest.raises(DeletedInMlflowError, match=named) as refusal:
        tracking.experiment_id(client, "deleted")
    _obey(refusal.value, tmp_path)
    assert tracking.experiment_id(client, "deleted") == experiment
    tracking.check_run(client, run_id, "key")
    client.delete_run(run_id)
    with pytest.raises(
        DeletedInMlflowError, match=f"it is deleted; bring it back by .*restore --run-id {run_id}"
    ) as refusal:
        tracking.check_run(client, run_id, "key")
    _obey(refusal.value, tmp_path)
    tracking.check_run(client, run_id, "key")


def test_a_deleted_experiment_is_made_anew_after_the_command_that_removes_it(client, folder, tmp_path):
    experiment = tracking.experiment_id(client, "removed")
    client.delete_experiment(experiment)
    with pytest.raises(DeletedInMlflowError, match="and a new one is made") as refusal:
        tracking.experiment_id(client, "removed")
    _obey(refusal.value, tmp_path, 1, f"sqlite:///{folder / 'mlflow.db'}")
    made = client.get_experiment(tracking.experiment_id(client, "removed"))
    assert (made.name, made.lifecycle_stage) == ("kestrel/removed", tracking.ACTIVE)


def test_a_run_that_is_gone_for_good_is_done_without(client):
    with pytest.raises(DeletedInMlflowError, match="it is gone for good; train with another run key"):
        tracking.check_run(client, "0" * 32, "key")


def test_whatever_mlflow_refuses_is_one_sentence(server, client):
    with pytest.raises(TrackingRefusedError, match=r"refused a call: .*not found"), tracking.reaching(server):
        client.get_run("0" * 32)
