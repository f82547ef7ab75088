"""The SDK: a client that finds the leader, remembers it and retries with the same request id."""
