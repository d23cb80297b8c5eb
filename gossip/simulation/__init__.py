"""The gossip machine of many nodes in virtual time: every fault, one seed, the same run again.

What is above in the picture may import what is below. Nothing that serves real nodes imports this.

    cluster
    network
    clock | hosts | objects

Modules:
    clock: virtual time, one heap of events
    cluster: clusters that know each other already
    hosts: one simulated node
    network: links and their faults, and the nodes at their ends
    objects: packets that are objects
"""
