"""One manager's copy of the replicated state, and the way to change it.

Modules:
    local: consensus of one, in memory
    proposer: changes -> consensus -> their outcome
    replica: the latest snapshot, watched
"""
