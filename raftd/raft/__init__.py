"""Consensus without I/O: messages, ticks and proposals go in, a Ready comes out.

Pure: imports no asyncio, time, random, os, grpc or google (held by import-linter). Start at ``raw_node`` for the door,
``ready`` for the contract, ``core`` for the algorithm's dispatch.
"""
