"""The replicated state machine without I/O: a command goes in, new state, replies and effects come out."""
