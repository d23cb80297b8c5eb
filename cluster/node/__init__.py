"""One daemon: the composition root, where all the parts of a node meet.

Modules:
    addresses: which addresses it listens on and advertises
    agent: session, gossip, tasks and data plane of any node
    config: its settings
    daemon: the process
    facts: what it says of its machine
    footprint: how little memory it needs
    founding: the first objects and files of a cluster
    http_log: what the HTTP servers may log of requests that are none
    identity: who it is to gossip
    leader: the control loops of the leading manager
    leadership: whether a leader hears the other managers, not only by Raft
    manager: consensus, port 2377 and sessions of a manager
    member: one membership, from joining to leaving
    metrics: what a daemon tells Prometheus
    node: the node as its API sees it
    state_file: what it remembers of its membership
"""
