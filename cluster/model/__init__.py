"""The objects of a cluster as plain immutable values, named after SwarmKit's nomenclature (pure).

Each object is a Spec (the user's wish) and what became of it. Addresses are text here, so that the
values travel and persist as they are; `dataplane` has them as numbers.

Modules:
    assignment: what a node is told
    cluster: the cluster's settings, trust and keys
    errors: what can be wrong with a request
    ids: identifiers
    logs: output of tasks
    meta: version and times of an object
    network: overlay networks
    node: members of the cluster
    service: what a user asks to run
    task: attempts at running one replica
    version: the version of hivewire
"""
