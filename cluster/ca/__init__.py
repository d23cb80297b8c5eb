"""Trust: the cluster's certificate authority, join tokens and TLS contexts.

A node is its certificate, never its address: CN = node id, OU = role, O = cluster id.

Modules:
    authority: who gets a certificate, and the issuing of it
    certificates: making, reading and checking certificates
    files: a node's certificate, key and CA on disk
    renewal: when to renew, and the loop that does
    signatures: signing with a node's key
    tls: TLS 1.3 contexts, and who is at the other end
    tokens: join tokens
"""
