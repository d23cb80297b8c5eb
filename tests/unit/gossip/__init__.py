"""Tests of the room `gossip`."""
