"""Tests of the agent: pure parts one by one, the worker on shipped fakes in virtual time."""
