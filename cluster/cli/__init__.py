"""The `hivewire` command: docker's verbs over the daemon's API, and the daemon itself.

Every command imports its own module only when it is called, and talks to the daemon with the
standard library, so that `hivewire service ls` answers at once.

Exit codes: 0 done; 1 the daemon refused, or the command failed; 2 wrong usage; 125 no daemon
answers; 130 interrupted.

Modules:
    client: HTTP over the daemon's unix socket
    daemon: starts a node
    document: reading what the API answered
    failure: how a command fails
    gossip: `hivewire gossip`
    local: a cluster of several nodes on this machine
    logs: output of services
    main: entry point, groups of commands
    network: `hivewire network`
    node: `hivewire node`
    options: what several commands share
    output: lists and objects on the terminal
    progress: waiting until a service is as wished
    service: `hivewire service`
    service_spec: command line options -> service spec
    sim: `hivewire sim`
    swarm: `hivewire swarm`
    system: `hivewire version`, `info`
    task: `hivewire task`, and lists of tasks
    template: `--format`
    values: durations, sizes, ports as people type them
"""
