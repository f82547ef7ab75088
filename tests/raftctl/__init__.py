"""The command line and the SDK."""
