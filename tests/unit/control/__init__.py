"""The control loops: scenario files, properties, and the rules that need no scenario."""
