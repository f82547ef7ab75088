"""The code, broken on purpose, one rule at a time, and which check notices."""
