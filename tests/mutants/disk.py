"""Broken rules of the disk: the log's records and segments, the snapshot files, the small files, their order.

What may live here: patches of ``raftd.storage``.
"""

from __future__ import annotations

from tests.mutants.mutant import SIMULATOR, TESTS, Edit, Mutant

WAL = "raftd/storage/wal.py"
RECORD = "raftd/storage/record.py"
RECOVERY = "raftd/storage/recovery.py"
MAKER = "raftd/storage/segment_maker.py"
SNAPSHOTS = "raftd/storage/snapshots.py"
WHERE = (SIMULATOR, TESTS)
CRASH_TESTS = (
    "tests/storage/test_wal_crash.py",
    "tests/storage/test_wal_damage.py",
    "tests/storage/test_directory.py",
)
SNAPSHOT_TESTS = (
    "tests/storage/test_compaction.py",
    "tests/storage/test_compaction_guards.py",
    "tests/storage/test_compaction_histories.py",
)

_ROLL = """        file, chain = self._maker.publish()
        self._file.pwrite(seal, self._offset)
        self._file.sync()
        self._file.close()
"""

MUTANTS = (
    Mutant(
        "skip an fsync",
        "a record is synced before it is called durable",
        (
            Edit(
                WAL,
                "        self._file.pwrite(record, self._offset)\n        self._file.sync()\n",
                "        self._file.pwrite(record, self._offset)\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
    ),
    Mutant(
        "report a write before it is written",
        "a completion attests that everything before it is durable",
        (
            Edit(
                "raftd/storage/thread.py",
                "must_sync or bool(entries), install))\n",
                "must_sync or bool(entries), install))\n        self._on_done(number)\n",
            ),
        ),
        checks=WHERE,
        tests=("tests/storage/test_thread.py",),
    ),
    Mutant(
        "write on after a failed fsync",
        "an fsync that failed is not tried again: nothing is written after it",
        (
            Edit(
                WAL,
                "        if self._failure is not None:\n            raise self._failure\n",
                "        return\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
    ),
    Mutant(
        "take a torn record for damage",
        "the last record's unfinished write is cut, for a crash explains it",
        (Edit(RECORD, "    return Torn(last_end)", '    return Damage(offset, "a torn record")'),),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "take damage for a torn record",
        "what no crash explains halts the node",
        (
            Edit(
                RECORD,
                '        return Damage(offset, "a record with a bad checksum and data in every sector")',
                "        return Torn(last_end)",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
    ),
    Mutant(
        "leave the torn record in its place",
        "a torn tail is zeroed, or it looks like damage behind the next record",
        (
            Edit(
                WAL,
                "    if torn is not None:\n        file.pwrite(bytes(torn.end - torn.offset), torn.offset)\n",
                '    if torn is not None and torn.end < 0:\n        file.pwrite(b"", torn.offset)\n',
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "believe the page cache after a restart",
        "what was read is written and synced again before anything is built on it",
        (Edit(WAL, "    file.sync()\n    return file\n", "    return file\n"),),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "replay a truncation without its cut",
        "an entry takes the place of the one at its index and of all behind it",
        (
            Edit(
                RECOVERY,
                "        del self.entries[max(0, position) :]\n",
                "        del self.entries[max(0, position)]\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="short reigns",
    ),
    Mutant(
        "seal before the next segment is there",
        "a segment is sealed when its successor has its name durably",
        (
            Edit(
                WAL,
                _ROLL,
                "        self._file.pwrite(seal, self._offset)\n        self._file.sync()\n"
                "        file, chain = self._maker.publish()\n        self._file.close()\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "roll before the seal is durable",
        "the seal is synced before the next segment has a record",
        (
            Edit(
                WAL,
                "        self._file.pwrite(seal, self._offset)\n        self._file.sync()\n",
                "        self._file.pwrite(seal, self._offset)\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "write on without a seal",
        "a segment that is followed by another is sealed",
        (
            Edit(
                WAL,
                _ROLL,
                "        file, chain = self._maker.publish()\n        self._file.close()\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "skip the directory's fsync of a rename",
        "a rename is durable after the directory's fsync",
        (Edit(MAKER, "        self._fs.fsync_dir(self._directory)\n", ""),),
        checks=WHERE,
        tests=CRASH_TESTS,
        leaning="struck writes",
    ),
    Mutant(
        "give out an incarnation before it is durable",
        "a number is never given out twice",
        (
            Edit(
                "raftd/storage/identity.py",
                "        file.pwrite(data, 0)\n        file.sync()\n",
                "        file.pwrite(data, 0)\n",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
    ),
    Mutant(
        "start twice as one incarnation",
        "every start is an incarnation of its own",
        (
            Edit(
                "raftd/storage/directory.py",
                "self.identity.store_id, self.incarnation + 1)",
                "self.identity.store_id, self.incarnation)",
            ),
        ),
        checks=WHERE,
        tests=CRASH_TESTS,
    ),
    Mutant(
        "begin a segment without a hard state",
        "what is left after a compaction has the term and the vote",
        (
            Edit(
                WAL,
                "return self._hard_state if hard_state is None and not begun else hard_state",
                "return hard_state",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "purge too much",
        "a segment goes only when a snapshot covers all of it",
        (Edit(WAL, "self._segments[count + 1][1] - 1 <= index", "self._segments[count][1] - 1 <= index"),),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "purge the newest first",
        "segments go oldest first: a crash leaves no gap",
        (
            Edit(
                WAL, "for path, _ in self._segments[:count]:", "for path, _ in self._segments[:count][::-1]:"
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "purge without the directory's fsync",
        "each segment is gone durably before the next",
        (
            Edit(
                WAL,
                "                # One at a time: a crash must not leave a gap.\n"
                "                self._fs.fsync_dir(self._directory)\n",
                "",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "purge before the snapshot's record",
        "the old log goes when the new one's first record is durable",
        (
            Edit(
                WAL,
                "        self._append(hard_state, entries, (snapshot.index, snapshot.term))\n",
                "        self._purge(len(self._segments) - 1)\n"
                "        self._append(hard_state, entries, (snapshot.index, snapshot.term))\n",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "name a snapshot before it is synced",
        "what has a name is whole",
        (
            Edit(
                SNAPSHOTS,
                "            file.sync()\n            file.close()\n",
                "            file.close()\n",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "skip the directory's fsync of a snapshot",
        "a snapshot counts when its name is durable",
        (
            Edit(
                SNAPSHOTS,
                "                writer.published(snapshot)\n                self.fs.fsync_dir(self._directory)\n",
                "                writer.published(snapshot)\n",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "take a damaged snapshot for a whole one",
        "every block is verified before it is believed",
        (
            Edit(
                SNAPSHOTS,
                '            raise DamagedLog(self._path, start, "a block with a bad checksum")\n',
                "            pass\n",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
    Mutant(
        "start from a log that no snapshot reaches",
        "a log that was compacted needs the snapshot that covers what is gone",
        (
            Edit(
                "raftd/storage/directory.py",
                "        if recovered.base_index:\n            raise",
                "        if recovered.base_index < 0:\n            raise",
            ),
        ),
        checks=WHERE,
        tests=SNAPSHOT_TESTS,
    ),
)
