"""Docker's JSON <-> the model's values (pure).

Clients send what Go's decoder would take: keys in any case, nulls for absent values, unknown keys.
`canonical` brings that in order once; the readers then check every value that the model keeps.

Invariants: a reader raises nothing but `Invalid` or `Unimplemented` whatever JSON it is given, and
what a view returns can be sent back as an update.

Modules:
    canonical: keys as Docker spells them, no nulls
    cluster: the swarm's settings; init and join requests
    fields: typed, checked reading of one JSON object
    network: overlay networks
    node: nodes
    service_spec: what a user asks to run -> ServiceSpec
    service_view: services and their specs -> JSON
    task: tasks -> JSON
    text: times, durations, names, signals
"""
