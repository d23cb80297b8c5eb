"""The DNS server of every sandbox: names of services and tasks, and everything else upstream.

Modules:
    codec: questions from and answers to the wire
    forwarder: asks the upstream resolvers
    listener: the UDP and TCP sockets of one sandbox
    resolv_conf: the machine's own resolvers
    server: listens in every sandbox of a plan
    upstreams: which upstream resolvers are worth waiting for
    zone: what a sandbox may know, and the answer to a question
"""
