"""What recall offered for the questions of the past: the pairs that models which order lists learn from.

    questions ──▶ serving: the engine's own recall ──▶ candidates ──▶ pipelines: features as of the question ──▶ models

The serving plane writes `recalled/<id>/` (`python -m serving.lists candidates`):

    manifest.json           `manifests.Candidates`
    <origin>.parquet        CANDIDATES, a file for each origin that has questions, named like its folder of questions

An item is a candidate if the recommender would have sent it to the model. Each channel that found it has a row.
"""

from __future__ import annotations

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import ITEM_ID, Dataset
from feature_repo.contracts.questions import QUESTION_ID

CHANNEL = Column("channel", Dtype.STRING, "Name of the channel")
CHANNEL_SCORE = Column(
    "score", Dtype.FLOAT32, "What it says of the item; null where the channel has none", nullable=True
)
CHANNEL_RANK = Column("rank", Dtype.INT64, "The item's place among those that it found, from 1")
FITTED_AT = Column("fitted_at", Dtype.TIMESTAMP, "Exclusive end of what the channel knows: at or before the question")

CANDIDATES = Dataset(
    name="candidates",
    columns=(QUESTION_ID, ITEM_ID, CHANNEL, CHANNEL_SCORE, CHANNEL_RANK, FITTED_AT),
    key=(QUESTION_ID.name, ITEM_ID.name, CHANNEL.name),
    sort=(QUESTION_ID.name, ITEM_ID.name, CHANNEL.name),
    partitioned_by_event_date=False,
    meaning="What the recommender would have ranked for a question, and what each channel said of it",
)
