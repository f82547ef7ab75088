"""Tests of raftd.blobs."""
