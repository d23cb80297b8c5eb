"""The dispatcher: messages, assignments, sessions."""
