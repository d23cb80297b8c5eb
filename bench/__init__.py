"""Benchmarks: ratios against a peer in the same run, on the machine that is at hand.

`python -m bench [NAME]`; the last lines of each are `ratio NAME R` or `value NAME V`. What the
numbers are not is said in each module. Peers come from Debian and are installed where that may be.

Modules:
    commits: control plane: committed writes beside etcd
    loadgen: closed-loop HTTP clients
    peers: installing and running the peers
    report: printing results
"""
