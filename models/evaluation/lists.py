"""The lists that users would be shown, as the serving plane measured them: metrics and a table for MLflow, and a page.

`python -m serving.lists measure` wrote the record. A figure that is null is undefined, and `undefined` says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from feature_repo.contracts.publishing import read_json
from feature_repo.contracts.questions import Asked
from models import tracking
from models.errors import CandidateError
from models.evaluation.table import CANDIDATE_ROW
from models.pages import page_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import mlflow

_TEMPLATES = Path(__file__).parent / "templates"
_FOLDER = "lists"
"""Of the run's artifacts."""
_TABLE = f"{_FOLDER}/table.json"
_PARTS = {
    *("namespace", "training_set_id", "origin", "simple", "best_simple", "tables", "against", "recall", "slices"),
    *("examples", "undefined", "sentence", "saved_model_sha256"),
}
_DECIDING = "ndcg_at_10"
_COLUMNS = {
    _DECIDING: "NDCG@10",
    "recall_at_10": "Recall@10",
    "hit_rate_at_10": "Hit rate@10",
    "mrr_at_10": "MRR@10",
    "map_at_10": "MAP@10",
    "ndcg_at_100": "NDCG@100",
    "recall_at_100": "Recall@100",
    "coverage": "Coverage",
    "novelty": "Novelty",
    "diversity": "Diversity",
    "overlap": "Overlap",
}
"""Figure → how people call it. Of all but the last, more is better."""
_LESS_IS_BETTER = {"overlap"}
_ASKED = {Asked.AT_ORIGIN.value: "at the origin", Asked.BEFORE_NEXT.value: "just before the next event"}
_EVERYTHING = "every figure"
"""The name of what is undefined where nothing was measured."""
_DEPTH = ", first "
"""Parts a list's name from a depth in the names of a slice's figures."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The candidate's NDCG@10 less that of another list."""

    difference: float
    interval: tuple[float, float] | None
    """None for fewer than two users."""


@dataclass(frozen=True, slots=True)
class ListFigures:
    """What verdicts read of a record: NDCG@10 of the users whom they are about, asked at the test origin."""

    users: int
    figures: Mapping[str, float]
    """List → NDCG@10."""
    against: Mapping[str, Difference]
    """List → how the candidate differs from it."""
    best_simple: str
    """The simple list that was best on validation."""
    undefined: Mapping[str, str]
    """What has no figure → why."""

    def why_not(self, reference: str) -> str:
        """Return why the candidate's lists cannot be compared with another; empty where they can."""
        if reference in self.against and {CANDIDATE_ROW, reference} <= self.figures.keys():
            return ""
        whose = {_EVERYTHING: "Lists", CANDIDATE_ROW: "The candidate's lists", reference: f"Lists of {reference}"}
        for name, lists in whose.items():
            if name in self.undefined:
                return f"{lists} were not measured: {self.undefined[name]}."
        return "Lists were not measured: nobody with a history long enough for a verdict was asked."


def list_figures(record: Mapping[str, Any]) -> ListFigures:
    """Return what verdicts read of a record that `read_lists` returned."""
    first: Mapping[str, Any] = record["tables"][0] if record["tables"] else {"users": 0, "rows": []}
    return ListFigures(
        users=first["users"],
        figures={row["list"]: row[_DECIDING] for row in first["rows"] if row[_DECIDING] is not None},
        against={
            each["list"]: Difference(each["difference"], tuple(each["interval"]) if each["interval"] else None)
            for each in record["against"]
            if each["difference"] is not None
        },
        best_simple=record["best_simple"],
        undefined=record["undefined"],
    )


def read_lists(path: Path, namespace: str, training_set_id: str, saved_model_sha256: str) -> dict[str, Any]:
    """Return the record of the candidate's lists.

    Raises:
        CandidateError: There is none, it is incomplete, or it is of another model or training set: its questions would
            have been asked at a time that the candidate knows.
    """
    command = f"python -m serving.lists measure --out {path}"
    if not path.is_file():
        msg = f"{path}: expected what `{command}` writes, received no file; run it first"
        raise CandidateError(msg)
    record: dict[str, Any] = read_json(path)
    if absent := sorted(_PARTS - record.keys()):
        msg = f"{path}: expected fields {sorted(_PARTS)}, {absent} are missing; run `{command}` again"
        raise CandidateError(msg)
    received = (record["namespace"], record["training_set_id"])
    if received != (namespace, training_set_id):
        msg = (
            f"{path}: expected lists for questions about namespace {namespace!r}, training set {training_set_id!r}, "
            f"received {received}; write questions with `python -m pipelines questions --training-set "
            f"{training_set_id}`, and run `{command}` with them"
        )
        raise CandidateError(msg)
    if record["saved_model_sha256"] != saved_model_sha256:
        msg = (
            f"{path}: expected lists of the SavedModel {saved_model_sha256}, received those of "
            f"{record['saved_model_sha256']!r}; run `{command}` with the candidate's"
        )
        raise CandidateError(msg)
    return record


def check_same_policy(record: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
    """CandidateError if lists were made by other quotas, or re-ranked otherwise, than those that would be promoted.

    Records of before there were policies say nothing of them.
    """
    if "policy" in record and "policy" in choice and record["policy"] != choice["policy"]:
        msg = (
            f"lists.json: expected lists made by {choice['policy']}, as the choice has it, received such by "
            f"{record['policy']}; run `python -m serving.lists measure` with the policy that `choose` printed"
        )
        raise CandidateError(msg)


def check_same_champion(record: Mapping[str, Any], named: str) -> None:
    """Refuse lists of another champion than the one whose rows are scored; `named` says which that is, or none.

    Raises:
        CandidateError: Another has come into force since lists were measured, or its spec was fitted again since.
    """
    measured = record.get("champion", "")  # records of before do not say
    if measured and measured != named:
        msg = (
            f"lists of {measured}: expected those of {named or 'no champion'}, which is compared on rows; another came "
            "into force meanwhile: run `python -m models refit`, and then `python -m serving.lists measure` again"
        )
        raise CandidateError(msg)


def log_lists(client: mlflow.MlflowClient, run_id: str, path: Path, record: Mapping[str, Any]) -> None:
    """Log the record that lies at `path` to the candidate's run; a retry leaves the run as it is."""
    # MLflow keeps one of equal metrics of one time. It is the run's own, so that a retry adds nothing.
    tracking.log_metrics(client, run_id, figures(record), client.get_run(run_id).info.start_time)
    client.log_artifact(run_id, str(path), _FOLDER)
    client.log_text(run_id, render(record), f"{_FOLDER}/report.html")
    # MLflow's own log_table adds a retry's rows to those that are there.
    client.log_text(run_id, json.dumps(table(record), ensure_ascii=False), _TABLE)
    shown_as_table = json.dumps([{"path": _TABLE, "type": "table"}])
    tags = {MLFLOW_LOGGED_ARTIFACTS: shown_as_table, "kestrel.lists": record["sentence"][:4900]}
    if record["best_simple"]:
        tags["kestrel.lists_best_simple"] = record["best_simple"]
    tracking.set_tags(client, run_id, tags)


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return name → figure of the candidate's and the best simple list in the first table, but for undefined ones."""
    rows = {row["list"]: row for row in record["tables"][0]["rows"]} if record["tables"] else {}
    named = {"candidate": rows.get(CANDIDATE_ROW, {}), "best_simple": rows.get(record["best_simple"], {})}
    return {
        f"lists_{name}_{figure}": row[figure]
        for name, row in named.items()
        for figure in _COLUMNS
        if row.get(figure) is not None
    }


def table(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return all tables as one, in the form in which MLflow keeps tables: `columns`, and rows as `data`."""
    about = ("asked", "history", "users", "answers")
    columns = ["list", *_COLUMNS, f"{_DECIDING}_low", f"{_DECIDING}_high", *about]
    rows = [
        [
            row["list"],
            *(row.get(key) for key in _COLUMNS),
            *(row["interval"] or (None, None)),
            *(each[key] for key in about),
        ]
        for each in record["tables"]
        for row in each["rows"]
    ]
    return {"columns": columns, "data": rows}


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a record: one HTML file that needs nothing else."""
    environment = page_environment(_TEMPLATES)
    environment.filters |= {"figure": _figure, "share": _share, "day": _day}
    first = {each["asked"]: each for each in reversed(record["tables"])}
    return environment.get_template("lists.html.jinja").render(
        record=record,
        main=first.get(Asked.AT_ORIGIN.value),
        before_next=first.get(Asked.BEFORE_NEXT.value),
        against={each["list"]: each for each in record["against"]},
        histories=_by_history(record["tables"]),
        undefined={_in_words(what): why for what, why in record["undefined"].items()},
        slices={title: _slice(rows, _names(record["tables"])) for title, rows in record["slices"].items() if rows},
        columns=_COLUMNS,
        best=_best,
    )


def _figure(value: float | None) -> str:
    """Return a figure with three digits, as the record's sentence has them."""
    return "–" if value is None else f"{value:.3f}"  # noqa: RUF001 - an en dash stands for "none" in the table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"  # noqa: RUF001 - as above


def _day(time: str) -> str:
    """Return the day of a midnight."""
    return time[:10]


def _in_words(what: str) -> str:
    """Return the name of an undefined figure, of which the first part may say when users were asked."""
    asked, parting, rest = what.partition(", ")
    return f"{_ASKED.get(asked, asked)}{parting}{rest}"


def _best(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return figure → the best one of a table's rows; none where nothing is compared."""
    known = {key: [row[key] for row in rows if row.get(key) is not None] for key in _COLUMNS}
    return {
        key: min(values) if key in _LESS_IS_BETTER else max(values) for key, values in known.items() if len(values) > 1
    }


def _names(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all lists, in the order of their first table."""
    return list(dict.fromkeys(row["list"] for each in tables for row in each["rows"]))


def _by_history(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a column for every table, and the deciding figures of each list in them."""
    deciding = [{row["list"]: row[_DECIDING] for row in each["rows"]} for each in tables]
    best = [max((value for value in own.values() if value is not None), default=None) for own in deciding]
    return {
        "columns": [{**each, "asked": _ASKED.get(each["asked"], each["asked"])} for each in tables],
        "rows": {name: [own.get(name) for own in deciding] for name in _names(tables)},
        "best": best,
    }


def _slice(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return a slice's lists with the depths of their figures, in the tables' order, and its rows."""
    depths: dict[str, list[int]] = {name: [] for name in names}
    for key in rows[0]:
        name, parting, depth = key.rpartition(_DEPTH)
        if parting:
            depths.setdefault(name, []).append(int(depth))
    lists = {name: sorted(own) for name, own in depths.items() if own}
    return {"lists": lists, "keys": [f"{name}{_DEPTH}{k}" for name, own in lists.items() for k in own], "rows": rows}
