"""Broken rules of the host: the loop around the core, its reads, its snapshots, the executors' leases.

What may live here: patches of ``raftd.node``, ``raftd.executor``, ``raftd.codec`` and ``raftd.services``.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, TESTS, Edit, Mutant

WRITES = "raftd/node/writes.py"
SESSIONS = "raftd/node/sessions.py"
APPLIER = "raftd/node/applier.py"
CODEC = "raftd/codec/snapshot.py"
NODE_SNAPSHOTS = "raftd/node/snapshots.py"
LEASES = "raftd/scheduler/lease.py"
BOOT = "raftd/node/boot.py"
WHERE = (SIMULATOR, TESTS)
LOOP_TESTS = ("tests/node/test_writes.py", "tests/node/test_loop.py", "tests/node/test_node.py")
CODEC_TESTS = ("tests/codec/test_snapshot.py", "tests/scheduler/test_histories.py")
BOOT_TESTS = ("tests/node/test_boot.py",)
CHANGE_TESTS = ("tests/node/test_changes.py",)

MUTANTS = (
    Mutant(
        "send before the write is done",
        "messages that wait for the disk leave when it is done (ready.py, step 3)",
        (
            Edit(
                WRITES,
                "        if ready.entries or ready.must_sync or ready.messages_after_persist:\n",
                "        self._send(ready.messages_after_persist)\n"
                "        if ready.entries or ready.must_sync or ready.messages_after_persist:\n",
            ),
        ),
        checks=WHERE,
        tests=LOOP_TESTS,
    ),
    Mutant(
        "apply an entry twice",
        "an entry is applied once",
        (
            Edit(
                APPLIER,
                "            outcome = self._machine.apply(entry.index, batch)\n",
                "            self._machine.apply(entry.index, batch)\n"
                "            self._machine.state.applied_index -= 1\n"
                "            outcome = self._machine.apply(entry.index, batch)\n",
            ),
        ),
        checks=WHERE,
    ),
    Mutant(
        "answer a read before it is applied",
        "a confirmed read waits until its index is applied here",
        (
            Edit(
                "raftd/node/reads.py",
                "while self._confirmed and self._confirmed[0][0] <= index:",
                "while self._confirmed:",
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_books.py",),
    ),
    Mutant(
        "answer by a lease that has ended meanwhile",
        "the lease is looked at again after the state was read",
        (
            Edit(
                "raftd/node/node.py",
                "if not by_lease or self._raw.holds_lease():",
                "if result is not self:",
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_node.py", "tests/node/test_loop.py"),
    ),
    Mutant(
        "serve before the own no-op is applied",
        "a leader serves when the entry of its own term is applied here",
        (Edit("raftd/node/tenure.py", "            and applied_term == term\n", ""),),
        checks=WHERE,
        tests=("tests/node/test_books.py",),
    ),
    Mutant(
        "take another leader's entry for one's own",
        "an entry answers its proposer only with the same term",
        (
            Edit(
                "raftd/node/proposals.py", "        if entry.term != term:\n", "        if entry.term < 0:\n"
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_books.py",),
    ),
    Mutant(
        "renew executors' leases alone",
        "an executor's lease is renewed after a quorum round that began since",
        (
            Edit(
                SESSIONS,
                "        await self._consensus.read_index(timeout=self._leases.lease_ms / 1000)\n",
                "",
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_attach.py",),
        leaning="lonely leaders",
    ),
    Mutant(
        "lose a node before its lease ends",
        "the leader waits longer than the executor",
        (
            Edit(
                LEASES,
                "return -(-self.lease_ms * (1000 + self.drift_permille) // 1000) + self.margin_ms",
                "return self.lease_ms // 2",
            ),
        ),
        checks=WHERE,
        tests=("tests/scheduler/test_lease.py",),
        leaning="lonely leaders",
    ),
    Mutant(
        "count a stall of the loop as silence",
        "heartbeats may have waited while the loop stood still",
        (Edit(LEASES, "        self._stalls_ms += max(0, stall_ms)\n", ""),),
        checks=WHERE,
        tests=("tests/scheduler/test_lease.py", "tests/node/test_loop.py"),
        leaning="lonely leaders",
    ),
    Mutant(
        "renew the lease of a node that is given up",
        "a node whose loss is proposed is never renewed again",
        (
            Edit(
                LEASES,
                "if node in self._given_up or node not in self._deadlines:",
                "if node not in self._deadlines:",
            ),
        ),
        checks=WHERE,
        tests=("tests/scheduler/test_lease.py",),
        leaning="lonely leaders",
    ),
    Mutant(
        "count the executor's lease from its renewal",
        "an executor counts from when it sent the heartbeat that was renewed",
        (
            Edit(
                "raftd/executor/leases.py",
                "        deadline_ms = sent_ms + self.lease_ms\n",
                "        deadline_ms = self._clock.boottime_ms() + self.lease_ms\n",
            ),
        ),
        checks=WHERE,
        tests=("tests/executor/test_pure.py",),
        leaning="lonely leaders",
    ),
    Mutant(
        "start an attempt again that has ended here",
        "what has ended and is not recorded yet is not started anew",
        (
            Edit(
                "raftd/executor/reconcile.py",
                "if token not in running and token not in unrecorded and not is_stale(assignment)",
                "if token not in running",
            ),
        ),
        checks=WHERE,
        tests=("tests/executor/test_pure.py",),
    ),
    Mutant(
        "lose the request ids with a snapshot",
        "a request that is sent again is one task, also after a snapshot",
        (Edit(CODEC, "            requests=(self._requests,),\n", "            requests=({},),\n"),),
        checks=WHERE,
        tests=CODEC_TESTS,
    ),
    Mutant(
        "lose the tombstones with a snapshot",
        "a removed store never comes back, also after a snapshot",
        (
            Edit(
                CODEC,
                "            removed_stores=tuple(head.removed_stores),\n",
                "            removed_stores=(),\n",
            ),
        ),
        checks=WHERE,
        tests=CODEC_TESTS,
    ),
    Mutant(
        "begin the tokens anew with a snapshot",
        "fencing tokens only grow",
        (Edit(CODEC, "                token=head.token_counter,\n", "                token=0,\n"),),
        checks=WHERE,
        tests=CODEC_TESTS,
    ),
    Mutant(
        "take a snapshot of what is not applied yet",
        "a snapshot is of the state at its index",
        (
            Edit(
                NODE_SNAPSHOTS,
                "place = (self._applier.last_applied, ",
                "place = (self._applier.last_applied + 1, ",
            ),
        ),
        checks=WHERE,
        tests=CHANGE_TESTS,
    ),
    Mutant(
        "compact what no snapshot covers",
        "the log goes only as far as a snapshot reaches",
        (
            Edit(
                "raftd/node/loop.py",
                "self._writes.compact(snapshot.index - kept_entries)",
                "self._writes.compact(snapshot.index + kept_entries)",
            ),
        ),
        checks=WHERE,
        tests=CHANGE_TESTS,
    ),
    Mutant(
        "keep no tail of the log",
        "a follower that is a little behind is sent entries, not a snapshot",
        (
            Edit(
                "raftd/node/loop.py",
                "self._writes.compact(snapshot.index - kept_entries)",
                "self._writes.compact(snapshot.index)",
            ),
        ),
        checks=WHERE,
        tests=CHANGE_TESTS,
    ),
    Mutant(
        "promote a learner that is behind",
        "a learner votes when it has caught up (thesis §4.2.1)",
        (
            Edit(
                "raftd/node/membership.py",
                "            and goal is not None\n            and row.match_index >= goal\n",
                "",
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_membership.py",),
    ),
    Mutant(
        "hear a store that was removed",
        "a removed store is refused",
        (Edit("raftd/services/identity.py", "if self._stores.is_removed(store_id):", "if False:"),),
        checks=(TESTS,),
        tests=("tests/services/test_identity.py",),
    ),
    Mutant(
        "hear a stream of another cluster",
        "a Raft message from the wrong log never reaches the core",
        (
            Edit(
                "raftd/services/identity.py",
                "if sender.cluster_id != local.cluster_id:",
                "if False:",
            ),
        ),
        checks=(TESTS,),
        tests=("tests/services/test_identity.py",),
    ),
    Mutant(
        "take a chunk with a bad checksum",
        "a snapshot arrives as it was sent, or not at all",
        (
            Edit(
                "raftd/services/consensus.py", "    if crc32(chunk.data) != chunk.crc32:\n", "    if False:\n"
            ),
        ),
        checks=(TESTS,),
        tests=("tests/transport/test_snapshot_stream.py", "tests/services/test_server.py"),
    ),
    Mutant(
        "start with the founders' configuration",
        "the configuration in a snapshot wins over older entries",
        (
            Edit(
                BOOT,
                "        snapshot.configuration,\n        snapshot,\n",
                "        Configuration(tuple(member.store_id for member in state.genesis.members)),\n"
                "        snapshot,\n",
            ),
        ),
        checks=WHERE,
        tests=BOOT_TESTS,
    ),
    Mutant(
        "end well though removed before the start",
        "a removed store never comes back",
        (Edit("raftd/node/roster.py", "if self._was_removed or 0 <", "if 0 <"),),
        checks=(TESTS,),
        tests=("tests/node/test_roster.py",),
    ),
    Mutant(
        "start from another state than the snapshot's",
        "a snapshot is of the state at its index",
        (Edit(BOOT, "    if state.applied_index != snapshot.index:\n", "    if False:\n"),),
        checks=WHERE,
        tests=BOOT_TESTS,
    ),
    Mutant(
        "hand the core another state than was announced",
        "a snapshot is of the state at its index",
        (
            Edit(
                NODE_SNAPSHOTS,
                "if state.applied_index != self._announcement.snapshot.index:",
                "if False:",
            ),
        ),
        checks=WHERE,
        tests=("tests/node/test_snapshots.py",),
    ),
    Mutant(
        "run on as an old copy of a directory",
        "a copied or restored directory is found out and halts",
        (Edit("raftd/node/roster.py", "and node.incarnation > (mine", "and 0 > (mine"),),
        checks=WHERE,
        tests=("tests/node/test_roster.py",),
    ),
    Mutant(
        "end before the others know of the removal",
        "a removed node stays until most of those that remain know that it was removed",
        (Edit("raftd/node/roster.py", "> len(voters) // 2", "> 0"),),
        checks=(TESTS,),
        tests=("tests/node/test_roster.py",),
    ),
    Mutant(
        "knock at closed doors only",
        "who is connected and was removed meanwhile learns of it too",
        (
            Edit(
                "raftd/transport/peer.py",
                "self._knocks and not self._queue and not ended.done()",
                "False",
            ),
        ),
        checks=(TESTS,),
        tests=("tests/transport/test_peer.py",),
    ),
    Mutant(
        "go on speaking to the first members",
        "peers are the members as they come and go",
        (Edit("raftd/node/roster.py", "if members and members != told:", "if members and not told:"),),
        checks=WHERE,
        tests=("tests/node/test_roster.py",),
    ),
    Mutant(
        "hear an older copy of a store",
        "of one store only the newest incarnation is heard",
        (
            Edit(
                "raftd/services/consensus.py",
                "if latest is not None and incarnation < latest.sender_incarnation:",
                "if False and latest is not None:",
            ),
        ),
        checks=(TESTS,),
        tests=("tests/transport/test_peer.py", "tests/services/test_identity.py"),
    ),
    Mutant(
        "hear two processes of one store",
        "of one life of a store only one process is heard",
        (
            Edit(
                "raftd/services/consensus.py",
                "return one.sender_start == other.sender_start",
                "return True",
            ),
        ),
        checks=(TESTS,),
        tests=("tests/transport/test_peer.py",),
    ),
)
