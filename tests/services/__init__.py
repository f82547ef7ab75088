"""Tests of raftd.services: real servers on loopback over small fakes of the node."""
