"""The gossip machine of many nodes in virtual time: every fault, one seed, the same run again.

What is above in the picture may import what is below. Nothing that serves real nodes imports this.

    scenarios
    convergence | detection | lifeguard | load
    cluster
    network
    clock | hosts | objects | figures

Modules:
    clock: virtual time, one heap of events
    cluster: clusters that know each other already
    convergence: how long until all nodes have one change
    detection: how long until all nodes know of a death
    figures: percentiles of what is measured
    hosts: one simulated node
    lifeguard: false alarms while some members are slow
    load: packets and bytes of idle nodes, hops of an update, repairs
    network: links and their faults, and the nodes at their ends
    objects: packets that are objects
    scenarios: what can be run by name
"""
