"""Runs tasks. A runtime starts single attempts, in a network namespace that it is given.

`process` runs a command in namespaces of its own; the modules marked (lean) run in the small
processes that stay beside each task, and import as little as they can.

Modules:
    base: what every runtime must do
    cgroups: the cgroups of tasks: version 2, version 1, or none
    framing: a task's output on disk (lean)
    isolation: from a forked process to the task's command (lean)
    launch: what a supervisor is told about its task (lean)
    launcher: the daemon's side of the zygote
    logs: reads the output that a supervisor keeps
    memory: a runtime without processes, for tests and the simulator
    mounts: what a task sees of the file system (lean)
    prepare: what can be said of a task before it starts
    process: tasks as processes of this machine
    rootfs: paths, programs and users inside a task's root file system (lean)
    supervisor: pid 1 of a task's namespace, which outlives the daemon (lean)
    syscalls: the Linux calls that Python 3.11 lacks (lean)
    zygote: forks the supervisors (lean)
"""
