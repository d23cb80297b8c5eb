"""A cluster of several nodes on one machine: every node a real daemon in its own network namespace.

`hivewire local up` starts one supervisor in new network, mount and PID namespaces (and, without
root, in a new user namespace). It is process 1 of them, makes a bridge and one network namespace
per node, and starts the daemons. When it ends, the kernel ends everything in it: nothing can be
left behind. A forwarder outside listens on one 127.0.x.y address per node and gets connections
made inside through the supervisor, as open sockets.

Modules:
    control: the supervisor's socket: asking and answering
    daemons: the daemons and what they run in
    demo: `make demo`
    forming: forms the cluster through its API, and follows its published ports
    forward: the forwarder, in the host's network namespace
    host_network: which of the host's 127.0.x.0/24 networks a cluster answers in
    layout: names, addresses and paths of a local cluster
    lifecycle: starting and ending it
    probe: the demo's client service
    supervisor: process 1 of the cluster's namespaces
    whoami: the demo's web service
"""
