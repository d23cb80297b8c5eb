"""The API over an in-memory cluster."""
