"""Tests of raftctl.client."""
