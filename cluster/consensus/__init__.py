"""Agreement between managers: commands applied in one order, exactly once, and never lost.

The rest of the cluster uses `node` (with `founding`, `config` and `errors`) and nothing else here.
PySyncObj is the Raft engine; it is not safe as it comes, and what makes it so is most of this
package (see `raft` and `core`). In it, above to below: `node`; `membership` and `proposals` on
`requests`; `driver` and `transport`; `core` and its parts (`following`, `voting`, `compaction`);
`raft`; and the rest: files, codecs and decisions.

Modules:
    appending: what a follower may believe of an AppendEntries message
    bridges: log, snapshots and transport as PySyncObj calls them
    compaction: when to take a snapshot, and what of the log to keep
    config: tunables
    core: one manager's Raft without I/O of its own
    deadlines: time limits that share one timer
    driver: runs the core on the event loop
    errors: storage failure, violated safety, malformed message
    files: a directory as the few operations that the log needs
    following: a follower's side of replication
    founding: the first files of a manager
    frames: the log's file format; torn or damaged
    headers: what a file is, the version of its format, and its salt
    identity: who a certificate says the peer is
    links: the two ends of a session
    members: who belongs to the cluster; the entries of the log
    membership: the leader's service to those who add and remove managers
    messages: what managers say to each other, and its wire form
    node: the facade
    ports: what the core needs from around it
    proposals: this manager's commands, each applied once
    raft: the only door to PySyncObj
    reads: linearizable reads without writing
    requests: asking the leader, wherever it is
    roster: who votes and who is heard
    seal: encryption at rest
    sessions: the replicated table that makes commands apply once
    snapshots: snapshots on disk and on their way
    transport: the mesh of sessions between managers
    voting: pre-vote, votes, and handing over
    wal: the write-ahead log
"""
