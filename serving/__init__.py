"""The serving plane: model server, rollout and recommender."""
