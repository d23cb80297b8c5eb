"""The data plane of one node: it makes the kernel (or user space) match a NodePlan.

This room knows networks, endpoints, peers and services as *addresses*; it knows nothing of Raft,
tasks, gossip or who decided the plan.

Modules:
    addressing: addresses that follow from a node's index
    balance: choosing a backend
    diff: two plans into what must change, in order
    dns: the DNS server of a sandbox
    driver: what every driver must do
    kernel: namespaces, bridges, VXLAN and nftables
    memory: a driver for tests and the simulator
    plan: the desired state
    state: what a plan means for one node
"""
