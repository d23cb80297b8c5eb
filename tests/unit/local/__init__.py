"""Tests of `cluster.local`."""
