"""Runs attempts: the Attach stream to the leader, the supervisor with its lease deadline, the warm slots."""
