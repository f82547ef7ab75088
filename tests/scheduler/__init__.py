"""The replicated state machine and its planner, without anything around them."""
