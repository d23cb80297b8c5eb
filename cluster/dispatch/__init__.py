"""Port 2377: joining, certificates, and the sessions between nodes and managers.

A node keeps one session (a WebSocket over mutual TLS) with any one manager. Down it come the
cluster's facts and the node's assignment, whole and then as differences; up go heartbeats and the
statuses of tasks. Managers tell the leader which nodes they see, and each other the logs they can
reach. The same port carries Raft, told apart by ALPN.

Modules:
    admission: joins and renewals: who is let in, with which certificate
    calls: one HTTP request to a manager, and what can go wrong with it
    channel: a two-way stream of messages, and WebSockets as one
    client: the node's side: keeps a session with any manager
    conversation: one session, from the node's side
    endpoints: the HTTP endpoints of port 2377
    inbox: what the node has been told of its assignment, page by page
    join: the joining node's side of a join
    log_sender: the node's side of log requests
    logs: the output of tasks, from whichever node they run on
    messages: what a session carries, and its codec
    outbox: the statuses that no manager has committed yet
    peers: what a node asks of managers outside its session
    port: the TLS server, shared by HTTP and Raft
    requests: bodies of the HTTP endpoints, and their codec
    server: the managers' side of sessions
    session: which part of the state a node is told, and differences of it
    sightings: which nodes were seen alive, when and by whom
    statuses: the statuses of many tasks as few proposals
"""
