"""Benchmarks: ratios against a peer in the same run, on the machine that is at hand.

`python -m bench [NAME]`; the last lines of each are `ratio NAME R` or `value NAME V`. What the
numbers are not is said in each module. Peers come from Debian and are installed where that may be.

Modules:
    certificates: certificates of a made-up cluster
    commit_node: one manager of the commits benchmark
    commits: control plane: committed writes beside etcd
    convergence: one change to all nodes beside NetworkDB, in virtual time
    detection: a killed gossip process beside serf
    detection_virtual: deaths beside memberlist, in virtual time
    gossip_fleet: many gossip processes on loopback
    gossip_idle: packets, hops and repairs of gossip, in virtual time
    gossip_share: processor and memory of bare gossip processes
    idle: memory and processor of an idle daemon
    ingress: a published port beside HAProxy
    joins: sixty gossip processes that join at once beside serf
    lab: two nodes and a client in namespaces
    lifeguard: false alarms with slow members, in virtual time
    loadgen: closed-loop HTTP clients
    orchestration: from a request until all replicas run
    overlay: an overlay network beside a hand-made VXLAN
    peers: installing and running the peers
    report: printing results
    serf: agents of serf and their RPC
    simulator: the simulator's own speed
    vip: a virtual IP beside direct connections
    virtual: simulations over all cores
    web: nginx and wrk
"""
