"""Tests of the built-in kinds of task."""
