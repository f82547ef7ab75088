"""Tests of raftd.transport: real streams on loopback, and the tables of faults."""
