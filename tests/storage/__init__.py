"""Tests of raftd.storage."""
