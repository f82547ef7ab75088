"""Consensus without I/O: messages, ticks and proposals go in, a Ready comes out that says what to do."""
