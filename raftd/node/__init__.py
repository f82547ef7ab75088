"""The host of both cores: the loop that obeys Ready, proposals, reads, the applier, the leader's planning."""
