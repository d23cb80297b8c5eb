"""Tests of consensus between managers."""
