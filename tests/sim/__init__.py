"""Simulated parts of a machine, for tests of what must survive the real ones."""
