"""Protobuf and gRPC code generated from protos/ by scripts/gen_protos; committed, never edited by hand."""
