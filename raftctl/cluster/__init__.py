"""Local clusters: their layout on disk, the launcher, and the processes it starts, finds again and stops."""
