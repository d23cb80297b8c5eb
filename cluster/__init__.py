"""The cluster: what should run, where, and with which addresses.

This room owns the domain model and joins the other two: it feeds `dataplane` from the replicated
store and from `gossip`, which do not know each other.

Modules:
    agent: the worker side: runs this node's tasks and plans its data plane
    allocation: what a node may publish of its tasks, signed by the managers
    api: the Docker Engine API subset
    ca: certificates, join tokens, TLS contexts
    cli: the `hivewire` command
    consensus: Raft: the only door to pysyncobj
    control: the managers' control loops, as pure functions
    dispatch: port 2377: joining, sessions between nodes and managers
    local: a cluster of several nodes on one machine
    model: the objects of a cluster
    node: one daemon: the composition root
    private_file: small files, replaced as a whole
    reconcile: the one control loop
    runtime: how tasks are run
    state: the replicated state and its changes
    store: the latest snapshot, watched, and the way to change it
    task_group: groups of tasks that leave no cancellation behind
"""
