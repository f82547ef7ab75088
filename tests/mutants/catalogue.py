"""All mutants, in the order in which they are tried and shown."""

from __future__ import annotations

from tests.mutants import disk, elections, host, members, orders, replication, scheduling

MUTANTS = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *members.MUTANTS,
    *disk.MUTANTS,
    *host.MUTANTS,
    *scheduling.MUTANTS,
    *orders.MUTANTS,
)
