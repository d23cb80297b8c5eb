"""What a daemon tells Prometheus: every metric, and from which component's `stats()` it is read.

Modules:
    agent: session, tasks, data plane and DNS of any node
    catalogue: all of them together
    gossip: membership and tables
    manager: Raft, port 2377, sessions, and the cluster's objects
    process: the daemon's process
"""
