"""The version of hivewire; a constant, because finding it in the installation costs a megabyte."""

VERSION = "0.1.0"
"""As in pyproject.toml; a test compares them."""
