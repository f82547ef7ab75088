"""The built-in task kinds, found through the entry-point group raftd.tasks and run inside slot processes."""
