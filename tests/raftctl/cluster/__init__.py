"""The launcher of local clusters."""
