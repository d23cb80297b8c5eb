"""Tests of `cluster.node`."""
