"""Messages between peers: one gRPC stream per direction, an in-memory network, and fault injection."""
