"""What managers allow a node to publish, and the proof of it."""
