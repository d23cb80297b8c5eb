"""The command line over an in-memory cluster."""
