"""Clients that work on a real cluster while its nodes die, stall and lose each other; and what must hold afterwards.

`run` puts it together, ``scripts/workload`` starts it, `audit` says what does not hold. Everything that was asked,
answered and done to the cluster is in one file, the history, and everything that ran in another, the ledger, so that
an audit can be repeated without the cluster.
"""
