"""The worker side of a node: runs its tasks, publishes their endpoints, plans its data plane.

`worker.Worker` is what the node drives. Modules marked (p) are pure.

Modules:
    applied: (p) what a node says of the draining tasks that its plan avoids
    claims: (p) who is right when two endpoints claim one thing
    drain: (p) whether every node has stopped using a task
    endpoints: (p) what this node's own tasks offer, as the managers allocated it
    execution: (p) a task as the runtime wants it
    hosts: which dead members' hosts live
    listener: shell of the sightings: looks at gossip, a few proofs at a time
    plan_loop: shell of planner and publisher
    planner: (p) assignment x records x live members -> NodePlan
    publisher: what gossip is to say of this node
    sightings: (p) what gossip says of the other nodes, as far as the managers have signed it
    state_file: what the agent remembers over a restart
    task_machine: (p) the next step of one task
    task_runner: shell of the task machine
    task_table: the tasks of this node and what they belong to
    worker: the agent of one node
"""
