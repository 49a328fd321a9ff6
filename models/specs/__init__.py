"""The specs of a training run: one YAML for each kind of model."""
