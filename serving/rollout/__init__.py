"""Moves models from the registry to the model server and back, without running them.

    verdict → publish → replay → promote        rollback, status

verdict         what the gates decided
publish         registry → disk by rename → loaded beside the old version
replay          golden requests to the new version
promote         configuration, label, release, aliases; rollback is a promotion of the previous version
status          what is served, since when, why, and whether server, pointer and registry agree
registry        the one place that talks to MLflow
models_config   the model server's configuration file, shared by all namespaces
candidate       the version under test: known to the server by request only, and to the next start by a journal
saved_models    checks a SavedModel's signatures against the contract, without TensorFlow
serving_model   names, places and clients of one model, and its lock
settings, errors
"""
