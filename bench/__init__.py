"""Benchmarks: ratios against a peer in the same run, on the machine that is at hand.

`python -m bench [NAME]`; the last lines of each are `ratio NAME R` or `value NAME V`. What the
numbers are not is said in each module. Peers come from Debian and are installed where that may be.

Modules:
    commits: control plane: committed writes beside etcd
    idle: memory and processor time of idle nodes
    ingress: a published port beside HAProxy
    lab: two nodes and a client in namespaces
    loadgen: closed-loop HTTP clients
    overlay: an overlay network beside a hand-made VXLAN
    peers: installing and running the peers
    report: printing results
    vip: a virtual IP beside direct connections
    web: nginx and wrk
"""
