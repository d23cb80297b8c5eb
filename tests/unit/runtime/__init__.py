"""Tests of the task runtimes."""
