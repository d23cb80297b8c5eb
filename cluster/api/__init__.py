"""The Docker Engine API subset, for Docker's own clients and ours.

Driven by the node: `server.serve(backend, socket)`. A handler reads the
request (untrusted), asks for a fresh snapshot, checks the wish against it, proposes changes. All
validation happens here, once; what is behind trusts the types.

Modules:
    absent: what a Docker engine has and hivewire has not
    backend: what the API needs of its node
    cautions: what a part of the cluster cannot fulfil of a service's wishes
    docker_json: Docker's JSON <-> the model's values
    errors: errors -> HTTP status and Docker's words
    event_diff: what happened between two snapshots
    events: `/events`
    exchange: one request and its answer
    exposition: numbers as Prometheus reads them
    filters: the `filters` query parameter
    follow: what a service's tasks go on writing, later ones too
    gossip: `/hivewire/gossip`, what this node knows of the others
    keys: `/swarm/keys`, the gossip keys
    logs: what tasks wrote
    lookup: finding an object by id, name or prefix
    metrics: `/metrics`
    networks: overlay networks
    nodes: members of the cluster
    server: routes, versions, headers
    services: what users ask to run
    streaming: answers that go on
    swarm: making, joining, leaving and changing the cluster
    system: `_ping`, `version`, `info`
    tasks: attempts at running replicas
    tls_info: what clients are shown of the CA certificate
"""
