"""The gRPC face of a node: one servicer per service, and errors turned into gRPC status codes."""
