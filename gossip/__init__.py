"""Membership and failure detection among nodes (SWIM), and the tables they share.

This room moves opaque names and values; it knows nothing of services or networks. What is above in
the picture may import what is below. Only `peer`, `transport`, `refusals` and `storage` do I/O.
What each packet and timer passes through has `__slots__`: a thousand nodes in one process wait for
memory most of the time, and slots alone save a sixth of it.

    peer | simulation
    transport | storage
    refusals | machine
    inbox | bootstrap | report
    notary | ledger
    membership | sync
    removal | supply
    failure | spread | digest
    helper | suspicion | paths | doubts
    outbox
    directory
    table | broadcast | hearsay
    codec | member | memory | proof | trust | waiting
    keyring
    freshness | message | timers | events | stats | identity | budget | hybrid | hearing
    checks
    wire | config

Modules:
    bootstrap: finds the cluster, and who is missing
    broadcast: queues of updates by rank and times sent
    budget: token buckets
    checks: what the values inside packets must be
    codec: how messages become packets
    config: tunables, in two profiles
    digest: what is known of a scope, as entries and hashes, and the deltas between
    directory: attachments, and which records are visible
    doubts: what a sender's counter is, asked where its packets come from
    events: what the machine tells its shell, and the views it lends
    failure: who answers probes and who does not
    freshness: packets that are new though their counter is not
    hearing: how long this node has heard nobody
    hearsay: old records wait until their nodes have spoken themselves
    helper: probes made for others
    hybrid: hybrid logical clocks
    identity: what the room must know of who a node is
    inbox: what becomes of a packet
    keyring: sealing and opening packets under rotated keys
    ledger: what is said in tables is taken once it is known that its owner said it
    machine: the state machine, without I/O
    member: the view of members and the order of claims about them
    membership: what to do with records and claims of members
    memory: identities that cost nothing, for the simulator and tests
    message: the wire form of messages
    notary: what is said about members is taken once it is known who said it
    outbox: packs messages into sealed datagrams
    paths: round trips, and members that only helpers reach
    peer: the facade: join, attach, publish, watch, leave
    proof: one signature for a whole log
    refusals: which datagrams were refused, from the socket's error queue
    removal: whom the managers removed, and that they stay out
    report: what is believed, held and counted, for people
    simulation: machines of many nodes in virtual time
    spread: eager dissemination in rounds
    stats: counters
    storage: the node's epoch on disk
    supply: what a peer lacks is sent to it, in datagrams or over a stream
    suspicion: how long each suspect has to refute
    sync: anti-entropy with digests and deltas
    table: logs of records by (scope, owner) and the rule that merges them
    timers: one heap of timers
    transport: the asyncio shell: UDP datagrams, TLS streams, one timer
    trust: signs and checks signatures
    waiting: what waits for a certificate
    wire: what nodes say to each other, limits and errors
"""
