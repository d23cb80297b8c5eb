"""The Docker Engine API subset, for Docker's own clients and ours.

Modules:
    backend: what the API needs of its node
"""
