"""What follows from the schema of MovieLens, under short names."""

from __future__ import annotations

from feature_repo.contracts.datasets import items_dataset, users_dataset
from feature_repo.contracts.features import FeatureGroup, declared
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import ranking


def _present(group: FeatureGroup | None) -> FeatureGroup:
    assert group is not None
    return group


FEATURES = declared(MOVIELENS)
USER_ACTIVITY = FEATURES.user_activity
USER_SESSION = FEATURES.user_session
USER_SEQUENCE = FEATURES.user_sequence
USER_WINDOWS = FEATURES.user_windows
USER_PROFILE = _present(FEATURES.user_profile)
ITEM_ACTIVITY = FEATURES.item_activity
ITEM_WINDOWS = FEATURES.item_windows
ITEM_PROFILE = _present(FEATURES.item_profile)
USER_HISTORY = FEATURES.user_history
USER_LIKED_ITEMS = FEATURES.user_liked_items
USER_STATE = FEATURES.user_state
FEATURE_GROUPS = FEATURES.groups
RANKING_FEATURES = FEATURES.ranking
RANKING = ranking(MOVIELENS)
ITEMS = items_dataset(MOVIELENS)
USERS = users_dataset(MOVIELENS)
LIKED_VALUE = MOVIELENS.positive.min_value
