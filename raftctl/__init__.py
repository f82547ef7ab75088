"""The command line and the Python SDK of the scheduler; it knows a node only by its gRPC interface."""

__version__ = "0.1.0"
