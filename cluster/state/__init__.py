"""The replicated state: a snapshot of all objects, and the changes that make the next one (pure).

Every manager applies the same changes in the same order, so everything here is deterministic.

Modules:
    apply: snapshot x changes -> snapshot
    changes: what can be changed, and when it is refused
    codec: changes and snapshots as bytes
    ports: which service holds a published port
    snapshot: all objects at one Raft index
"""
