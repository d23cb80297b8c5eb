"""Tests of the sandboxes' resolver."""
