"""Tests of raftctl.commands."""
