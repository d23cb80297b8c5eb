"""The managers' control loops: each is a pure `decide`, run on the leader by `cluster.reconcile`.

`decide(snapshot, now, ...)` is given the whole replicated state and the time (unix seconds), and
returns the changes that bring it nearer to what the users wished. It is level-triggered: applied to
its own result it returns nothing. Any prefix of what it returns may be committed alone.
`next_wakeup(snapshot, now)`, where there is one, returns the seconds (> 0) after which time alone
may ask for something, or None.

Modules:
    addresses: IPv4 subnets and the addresses in them
    admission: what the API refuses before it proposes anything
    allocation_key: what the managers sign allocations with
    allocator: VNIs, subnets, virtual IPs, published ports, tasks' addresses
    batch: all loops in one transaction, from a new service to its assigned tasks
    constraints: placement constraints
    keys: the gossip key ring
    liveness: which nodes are ready, which are down
    orchestrator: one live task in each slot of every service
    reaper: forgets tasks that nobody needs any more
    restart: when an ended task is replaced
    scheduler: a node for each pending task
    slots: a service's tasks by slot
    upkeep: what becomes of a slot: restarts, lost tasks, rollout
"""
