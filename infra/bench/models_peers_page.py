"""What peers made of the same rows: figures of `docs/results/models.json`, and a table of `docs/quality.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.bench.models_summary import told_interval
from infra.bench.results import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    Record = Mapping[str, Any]

LEAST_LESS_PEER = -0.002
"""Of the AUC of ours less a peer's: the least that the lower end of the interval should be."""
_INTRODUCTION = """### Beside independent implementations, {data}

The same rows, embedding size, settings to choose from and seeds; libraries of their own, in an environment of their own
(`infra/bench/peers`). The interval of the difference holds 95 %, users are resampled with their rows; its lower end
should be {least:+.3f} or more."""
_HOW = {"random": "at random, {folds} of 10 folds", "time": "by time"}


def peer_figures(data: Record) -> list[Figure]:
    """Return each peer's AUC, and the lower end of ours less it."""
    found = []
    for line in data.get("peers", ()):
        if "less_peer" not in line:
            continue
        how, peer = _HOW[line["how"]].format(**line), _named(line)
        found.append(Figure(f"{data['data']}: AUC of {peer}'s {line['model']} {how}", line["auc"], "ratio", "higher"))
        of = f"{data['data']}: AUC of {line['model']} less {peer}'s, {how}, the interval's lower end"
        low = line["less_peer"]["low"]
        found.append(Figure(of, low, "ratio", "higher", LEAST_LESS_PEER, hard=True))
    return found


def peer_table(data: Record) -> list[str]:
    """Return the lines of the table, and who has no figure; nothing where no peer was run."""
    lines = sorted(data.get("peers", ()), key=lambda line: (line["how"], line["model"], line["peer"]))
    if not lines:
        return []
    known = [line for line in lines if "less_peer" in line]
    below = sum(not _holds(line) for line in known)
    return [
        _INTRODUCTION.format(data=data["data"], least=LEAST_LESS_PEER),
        "",
        f"{len(known) - below} of {len(known)} differences hold.",
        "",
        "| model | peer | rows | AUC of ours | of the peer | ours less peer | holds |",
        "|---|---|---|---|---|---|---|",
        *(_row(line) for line in known),
        "",
        *(
            f"- {line['peer']}'s {line['model']} has no figure: {line['error'].splitlines()[-1]}"
            for line in lines
            if "error" in line
        ),
        "",
    ]


def _row(line: Record) -> str:
    less = line["less_peer"]
    how = _HOW[line["how"]].format(**line)
    figures = f"{line['ours']:.4f} | {line['auc']:.4f} | {less['value']:+.4f} ({told_interval(less)})"
    return f"| {line['model']} | {_named(line)} | {how} | {figures} | {'yes' if _holds(line) else 'no'} |"


def _holds(line: Record) -> bool:
    low = line["less_peer"]["low"]
    return low is not None and low >= LEAST_LESS_PEER


def _named(line: Record) -> str:
    return f"{line['peer']} {line['versions'][line['peer']]}"
