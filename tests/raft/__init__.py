"""Tests of the consensus core: scenarios as the paper tells them, and random faults under the paper's invariants."""
