"""What the planes agree on. Standard library only: every plane may import this package, and it imports none of them.

exit_codes    what a job's exit status says to the orchestrator
jobs          how a job ends: its result, its errors, its exit code
columns       the value types and the declaration of one column
datasets      events, items, users and the derived tables: columns, keys, partitioning
ids           what may be an id of a user, an item or an event, at every door
events        one event as it is sent, carried and landed, and what refuses it
features      feature groups and feature services, with the hashes of their definitions
embeddings    kinds of item embeddings: how they are fitted, their snapshots and feature groups
on_demand     what exists at request time alone, computed in the models' graphs
signatures    inputs and outputs of the models
intervals     namespaces, cutoffs, and the partition key that travels with an Airflow asset
manifests     training set, online snapshot, gate verdict and release: the records that everything switches by
places        where each of these lies in the state folder
publishing    write by rename, read with a check, and checksum
orchestration what the DAGs ask of the Airflow that runs them
"""
