"""Changes of the membership, spelled for tests: "+4" adds a voter, "~4" a learner, "-4" removes."""

from raftd.raft.membership import ChangeKind, ConfChange, MemberChange
from raftd.raft.types import Configuration

KINDS = {"+": ChangeKind.ADD_VOTER, "~": ChangeKind.ADD_LEARNER, "-": ChangeKind.REMOVE}
SIGNS = {kind: sign for sign, kind in KINDS.items()}


def change_of(*changes: str) -> ConfChange:
    """change_of("+4", "-1"): 4 becomes a voter and 1 leaves."""
    return ConfChange(tuple(MemberChange(KINDS[change[0]], int(change[1:])) for change in changes))


def encode_change(change: ConfChange) -> bytes:
    """What stands in the log; nothing where the joint configuration is left."""
    return " ".join(f"{SIGNS[each.kind]}{each.node}" for each in change.changes).encode()


def decode_change(data: bytes) -> ConfChange:
    """The change that an entry's data stands for."""
    return change_of(*data.decode().split())


def expected(before: Configuration, change: ConfChange) -> Configuration:
    """What the change makes of a configuration, said in another way than the core does."""
    voters = [node for node in before.voters if all(node != each.node for each in change.changes)]
    learners = [node for node in before.learners if all(node != each.node for each in change.changes)]
    voters += [each.node for each in change.changes if each.kind is ChangeKind.ADD_VOTER]
    learners += [each.node for each in change.changes if each.kind is ChangeKind.ADD_LEARNER]
    came, went = len(set(voters) - set(before.voters)), len(set(before.voters) - set(voters))
    return Configuration(tuple(voters), tuple(learners), before.voters if came + went > 1 else ())
