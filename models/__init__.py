"""The model plane: training, evaluation, gates and the registry."""
