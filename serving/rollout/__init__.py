"""Moves parts of releases from the registry to the model server and back, without running them.

    verdict → publish → replay → canary → compare → promote        rollback, reconcile, withdraw, status

verdict          what the gates decided, and whether they compared the version with the champion
publish          registry → disk by rename → loaded beside the old version
replay           golden requests to the new version
canary           the label, and a share of the recommender's requests
compare          recorded requests to canary and stable version
comparison       figures of two versions, and what of them is a reason to withdraw the new one
recorded_requests  samples of what recommenders sent; golden requests where there are none
warmup           the warm-up file of a version that is about to be published
promote          the tested version is the one that users get
online_views     whether the features that a release reads are online
rollback         a release that was in force before is it again
switching        what both do, step by step, and what becomes of it when it is cut off
journal          what a switch means to do, written before it does it, and what was done
reconcile        everybody agrees with the pointer again
status           what is served, since when, why, and who disagrees
agreement        whether pointer, configuration, server, registry and disk agree
registry         the one place that talks to MLflow
release_records  makes a part out of what a run recorded
composition      makes a release of parts
file_parts       parts that are files
models_config    the model server's configuration file, shared by all namespaces
candidate        the version under test: known to the server by request, and to the next start by a journal
version_folders  versions on disk
saved_models     checks a SavedModel's checksum and signatures, without TensorFlow
serving_model    names, places and clients of one model, and the lock of its namespace
settings, errors
"""
