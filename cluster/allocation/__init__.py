"""What the managers allow a node to publish of each of its tasks, and the proof of it (pure).

A manager composes the record of a task in every scope (addresses, names, ports), signs it with the
cluster's allocation key for the one node that runs the task, and sends both with the node's
assignment. The node adds nothing but the phase; every other node checks the token before it
believes anything.

Modules:
    compose: a task and what it belongs to -> its records
    issue: the managers' side: signs, and does not sign again what has not changed
    records: the record that nodes exchange, as bytes
    tokens: allocation tokens and keys; a door to `cryptography`
"""
