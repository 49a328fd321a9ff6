"""The job `refit`: where the champion knows what the gates ask, its own spec is fitted again, on this run's rows.

A champion that has learned from events after the test origin, or from test rows, knows answers that the candidate is
asked for. Its spec, fitted again as of the run's cutoff, knows no more than the candidate, and stands in for it.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from feature_repo.contracts.manifests import Questions, Refit, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import CorruptRecordError, read_json
from feature_repo.contracts.questions import Role as OriginRole
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import SIGNATURE_FILE, UnknownFeaturesError, ranking, read_signature
from models import tracking
from models.candidate_folder import CandidateFolder, training_set_of
from models.dataset import find_training_set
from models.errors import CandidateError, NotFiniteError, SpecError
from models.evaluation.champion import changed_inputs, find_champion, training_set_of_champion
from models.specs.spec import parse_spec
from models.training.job import train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.evaluation.champion import Found
    from models.settings import Settings
    from models.specs.spec import Spec

log = logging.getLogger(__name__)
_SPEC = "spec.json"
"""The artifact of a champion's run that says how it was trained."""
_NO_FIT = dict.fromkeys(("saved_model", "saved_model_sha256", "training_set_id", "fitted_until", "impossible"), "")


@dataclass(frozen=True, slots=True)
class _Champion:
    """The version in force, what it has learned from, and how."""

    version: str
    run_id: str
    learned_until: datetime | None
    """The end of its rows; None where nothing says it."""
    training_set: TrainingSet | None
    reads_pairs: bool
    """Whether it reads what channels say."""
    spec: Spec | None
    unknown: str
    """Why there is no spec; else empty."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """A SavedModel of the champion's spec that has learned from this run's rows."""

    name: str
    """The part of the candidate's folder."""
    training_set: TrainingSet
    run: Mapping[str, Any]
    """`run.json`."""


def refit(
    settings: Settings, namespace_name: str, training_set_id: str, run_key: str, questions_id: str
) -> dict[str, object]:
    """Write `refit.json`: whether the champion can be asked, and where the fit lies that stands in for it if not.

    A spec of this run that is the champion's own is not trained a second time. A spec that cannot be fitted any longer
    is no error: `impossible` says why, and the gates beside the champion do not apply.

    Args:
        settings: The model plane's.
        namespace_name: The data set's.
        training_set_id: The training set of kind RANKING, which names the run.
        run_key: Names the training run, of which a spec was chosen.
        questions_id: The questions that lists are judged by.

    Raises:
        CandidateError: Nothing was chosen yet, or there are no such questions.
        DatasetError: The champion's spec reads features that this run's training set could have, but lacks.
    """
    namespace = Namespace(settings.state, namespace_name)
    folder = CandidateFolder(namespace, run_key)
    choice = folder.chosen(training_set_id)
    judged_by = TrainingSet.read(find_training_set(namespace, choice["winner_training_set_id"]) / MANIFEST)
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        champion = _champion(client, namespace)
    record = Refit(namespace_name, version="", run_id="", learned_until="", asked_from="", **_NO_FIT)
    if champion is not None:
        asked_from = _asked_from(_test_origin(namespace, questions_id), judged_by, champion)
        record = _record(settings, folder, choice, champion, asked_from)
    record.write(folder.refit)
    log.info("%s", _told(record))
    return {
        "version": record.version,
        "needed": record.needed,
        "saved_model": str(namespace.root / record.saved_model) if record.saved_model else "",
        "training_set": record.training_set_id,
        "why": record.why,
        "impossible": record.impossible,
    }


def _told(record: Refit) -> str:
    """Return what became of it, in one line."""
    if not record.version:
        return "there is no champion yet"
    if not record.needed:
        return f"{record.named} knows nothing of what the gates ask"
    return f"{record.why}; {record.impossible or f'{record.saved_model} stands in for it'}"


def _champion(client: mlflow.MlflowClient, namespace: Namespace) -> _Champion | None:
    with tempfile.TemporaryDirectory() as scratch:
        found = find_champion(client, namespace, Path(scratch))
        if found is None:
            return None
        training_set = training_set_of_champion(namespace, found, Path(scratch))
        try:
            spec, unknown = _spec_of(found, Path(scratch)), ""
        except SpecError as error:
            spec, unknown = None, str(error)
        reads_pairs = _reads_pairs(found)
    until = training_set.valid_end if training_set else found.cutoff
    return _Champion(
        version=found.version,
        run_id=found.run_id,
        learned_until=datetime.fromisoformat(until) if until else None,
        training_set=training_set,
        reads_pairs=reads_pairs,
        spec=spec,
        unknown=unknown,
    )


def _reads_pairs(found: Found) -> bool:
    """Tell whether a model reads what channels say; none did before signatures were stored."""
    if found.saved_model is None or not (found.saved_model / SIGNATURE_FILE).exists():
        return False
    return bool(read_signature(found.saved_model).pairs)


def _spec_of(found: Found, scratch: Path) -> Spec:
    """Return the spec that the champion's run recorded; SpecError if it did not, or there is none of its kind now."""
    try:
        path = mlflow.artifacts.download_artifacts(run_id=found.run_id, artifact_path=_SPEC, dst_path=str(scratch))
    except MlflowException as error:
        if not tracking.missing(error):
            raise
        msg = f"its run {found.run_id or 'of no id'} has no {_SPEC}, which trainings log, or is gone from MLflow"
        raise SpecError(msg) from error
    try:
        return parse_spec(read_json(Path(path)))
    except CorruptRecordError as error:
        msg = f"its run {found.run_id} has a {_SPEC} that cannot be read: {error}"
        raise SpecError(msg) from error


def _test_origin(namespace: Namespace, questions_id: str) -> datetime | None:
    """Return the moment that lists are judged at; None where the log is too short for one."""
    path = namespace.questions / questions_id / MANIFEST
    try:
        origins = Questions.read(path).origins
    except (OSError, CorruptRecordError) as error:
        msg = f"{path}: expected questions, received {error}; name what `python -m pipelines questions` printed"
        raise CandidateError(msg) from error
    tests = [each["origin"] for each in origins if each["role"] == OriginRole.TEST]
    return datetime.fromisoformat(tests[-1]) if tests else None


def _asked_from(origin: datetime | None, judged_by: TrainingSet, champion: _Champion) -> datetime | None:
    """Return the first moment that the gates ask a champion about; None if they ask it nothing.

    Rows of events say nothing of what channels do: whoever reads that is not scored on them.
    """
    scored = judged_by.kind is TrainingKind.LISTS or not champion.reads_pairs
    moments = [origin, datetime.fromisoformat(judged_by.valid_end) if scored else None]
    return min((each for each in moments if each is not None), default=None)


def _record(
    settings: Settings,
    folder: CandidateFolder,
    choice: Mapping[str, Any],
    champion: _Champion,
    asked_from: datetime | None,
) -> Refit:
    """Return the Refit of a champion, whose spec is fitted now if that is needed and was not done yet."""
    until = champion.learned_until
    moments = ("" if each is None else each.isoformat() for each in (until, asked_from))
    record = Refit(folder.namespace.name, champion.version, champion.run_id, *moments, **_NO_FIT)
    if until is None or asked_from is None or until <= asked_from:
        return record
    try:
        fit = _fit(settings, folder, choice, champion)
    except (SpecError, NotFiniteError) as error:
        return replace(record, impossible=str(error))
    return replace(
        record,
        saved_model=str(folder.saved_model(fit.name).relative_to(folder.namespace.root)),
        saved_model_sha256=fit.run["saved_model_sha256"],
        training_set_id=fit.training_set.training_set_id,
        fitted_until=fit.training_set.valid_end,
    )


def _fit(settings: Settings, folder: CandidateFolder, choice: Mapping[str, Any], champion: _Champion) -> _Fit:
    """Return a fit of the champion's spec on this run's rows: one of this run's own, or one that is made now.

    Raises:
        SpecError: Its class, its features or its rows are gone.
        NotFiniteError: It learns nothing that counts on these rows.
    """
    if champion.spec is None:
        raise SpecError(champion.unknown)
    spec = champion.spec.whole()
    sets = (choice["training_set_id"], choice["lists_training_set_id"])
    own = training_set_of(spec, *sets)
    if not own:
        msg = "it learns from lists, of which this run has no training set"
        raise SpecError(msg)
    training_set = TrainingSet.read(find_training_set(folder.namespace, own) / MANIFEST)
    _check_features(spec, champion.training_set, training_set)
    trained = {each["name"]: folder.run_of(each["name"], each["training_set_id"]) for each in choice["specs"]}
    for name, run in trained.items():
        if parse_spec(run["spec"]).definition == spec.definition:
            return _Fit(name, training_set, run)
    again = spec.standing_in(champion.version)
    done = train(settings, folder.namespace.name, sets[0], again, folder.run_key, lists_id=sets[1])
    return _Fit(again.name, training_set, done)


def _check_features(spec: Spec, theirs: TrainingSet | None, ours: TrainingSet) -> None:
    """SpecError if a feature of the spec is gone, or defined otherwise than when the champion learned from it."""
    try:
        columns = ranking(Schema.from_json(ours.schema), spec.features, spec.learned).input_columns
    except UnknownFeaturesError as error:
        raise SpecError(str(error)) from error
    inputs = [column.name for column in columns]
    if theirs is not None and (changed := changed_inputs(theirs, inputs, ours)):
        msg = f"its features {changed} are gone, or defined otherwise now"
        raise SpecError(msg)
