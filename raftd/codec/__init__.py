"""The only place that knows both the cores' dataclasses and the protobuf messages, and turns one into the other."""
