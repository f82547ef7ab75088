"""Tests of raftctl.views."""
