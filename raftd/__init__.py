"""A node of the cluster: a Raft peer, a scheduler and an executor in one process, speaking gRPC."""

__version__ = "0.1.0"
