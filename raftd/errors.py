"""The error tree: every failure that is expected has a type here, carries its data, and says what to try.

What may live here: exception classes, their wire codes, nothing that imports another module of the project.
Broken invariants are not in this tree: they crash the process (see ``raftd.raft.invariants``).

::

    RaftdError
    ├── InvalidRequest                what was asked can never work                         exit 2
    │   ├── UnknownKind
    │   ├── InvalidArguments
    │   ├── PayloadTooLarge
    │   └── ConfigError               a flag, a variable or a file is wrong
    ├── NotFound                                                                             exit 3
    │   ├── TaskNotFound  JobNotFound  NodeNotFound  BlobNotFound
    │   └── LogsGone                  the output was never kept, or went with its node
    ├── Unavailable                   may work later, or elsewhere                           exit 4
    │   ├── NoLeader                  nobody leads that this node knows of
    │   ├── NotLeader                 carries the leader's name and address, if known
    │   ├── NoQuorum                  a leader cannot reach a majority in time
    │   ├── OutcomeUnknown            it was appended, and then leadership was lost
    │   ├── DeadlinePassed            the caller's deadline passed before it was done
    │   ├── ShuttingDown
    │   ├── DiskFull                  this node writes nothing until there is room
    │   ├── TransferFailed            the leadership did not change hands in time
    │   └── PeerUnreachable
    ├── Rejected                      understood, possible, refused                          exit 6
    │   ├── QueueFull                 retryable; carries the limit
    │   ├── TooManyUncommitted        retryable; carries the limit
    │   ├── RequestIdConflict
    │   ├── RequestExpired            the request id is older than ids are remembered
    │   ├── StaleToken                the attempt is not the current one
    │   ├── NameTaken
    │   ├── StoreRemoved              the store was removed from the cluster, for good
    │   ├── InvalidChange             the membership cannot be changed so
    │   └── ChangePending             retryable; another change of the membership is under way
    ├── Refused                       this caller may not do this here                       exit 1
    │   ├── Unauthenticated
    │   ├── WrongIdentity             wrong cluster, wrong store, wrong node
    │   ├── IncarnationLost           the cluster has given up on this life of the executor
    │   │   └── OldCopy               there was a later one: the data directory is an old copy
    │   ├── StoreTwice                two processes speak as one store: a data directory was copied
    │   └── FaultInjectionOff
    ├── StorageError                  the disk said no, or says something unknown            exit 1
    └── UnknownFormat                 bytes of a version that this build does not know       exit 1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class RaftdError(Exception):
    """The root of every expected failure.

    Args:
        message: what happened and to what, one line.
        try_: what the reader can do next, one line; empty where there is nothing.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, try_: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.try_ = try_


class InvalidRequest(RaftdError):
    """What was asked can never work, whoever is asked and whenever."""

    code = "invalid_request"


class UnknownKind(InvalidRequest):
    """No node of the cluster has ever offered this kind of task."""

    code = "unknown_kind"


class InvalidArguments(InvalidRequest):
    """The kind's own check refuses these arguments."""

    code = "invalid_arguments"


class PayloadTooLarge(InvalidRequest):
    """A payload, an argument list, an environment or a message is over its limit; the message names the limit."""

    code = "payload_too_large"


class ConfigError(InvalidRequest):
    """A setting is wrong, or two settings clash; the message names the values and where they come from."""

    code = "config"


class NotFound(RaftdError):
    """The named thing is not there."""

    code = "not_found"


class TaskNotFound(NotFound):
    """No task has this id (it may have been forgotten: ended tasks are kept by count and age)."""

    code = "task_not_found"


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job_not_found"


class NodeNotFound(NotFound):
    """No node has this name."""

    code = "node_not_found"


class BlobNotFound(NotFound):
    """No node that can be reached holds these bytes."""

    code = "blob_not_found"


class LogsGone(NotFound):
    """The output of this attempt was never kept, or its node is gone."""

    code = "logs_gone"


class Unavailable(RaftdError):
    """It may work later or elsewhere; nothing was done."""

    code = "unavailable"
    retryable = True


class NoLeader(Unavailable):
    """Nobody leads, as far as this node knows."""

    code = "no_leader"


class NotLeader(Unavailable):
    """This node does not lead.

    Attributes:
        leader: the leader's name, or empty.
        address: its address, or empty.
    """

    code = "not_leader"

    def __init__(self, message: str, *, try_: str = "", leader: str = "", address: str = "") -> None:
        super().__init__(message, try_=try_)
        self.leader = leader
        self.address = address


class NoQuorum(Unavailable):
    """A leader cannot reach a majority of the voters in time."""

    code = "no_quorum"


class OutcomeUnknown(Unavailable):
    """It was appended, then leadership was lost: it may or may not happen. Retry under the same request id."""

    code = "outcome_unknown"


class DeadlinePassed(Unavailable):
    """The caller's deadline passed before the work was done."""

    code = "deadline_passed"


class ShuttingDown(Unavailable):
    """This node is about to stop and takes no new work."""

    code = "shutting_down"


class DiskFull(Unavailable):
    """This node's disk is full: it takes no new work until there is room, and then goes on by itself."""

    code = "disk_full"


class TransferFailed(Unavailable):
    """The leadership was not handed over in time; the leader goes on leading."""

    code = "transfer_failed"


class PeerUnreachable(Unavailable):
    """A node that is needed for this cannot be reached."""

    code = "peer_unreachable"


class Rejected(RaftdError):
    """Understood and possible, but refused in the present state."""

    code = "rejected"


class QueueFull(Rejected):
    """The queue is at its limit; the message names it."""

    code = "queue_full"
    retryable = True


class TooManyUncommitted(Rejected):
    """Too many bytes wait for a quorum; the message names the limit."""

    code = "too_many_uncommitted"
    retryable = True


class RequestIdConflict(Rejected):
    """This request id was used for another request."""

    code = "request_id_conflict"


class RequestExpired(Rejected):
    """The request id is older than ids are remembered: whether it ran is not known any more, so it is not run."""

    code = "request_expired"


class StaleToken(Rejected):
    """The attempt is not the current one of its task, or its token is not equal: it changes nothing."""

    code = "stale_token"


class NameTaken(Rejected):
    """The name belongs to something else."""

    code = "name_taken"


class StoreRemoved(Rejected):
    """The store was removed from the cluster: it never comes back, for it may have forgotten what it promised."""

    code = "store_removed"


class InvalidChange(Rejected):
    """The membership cannot be changed so; trying again does not help."""

    code = "invalid_change"


class ChangePending(Rejected):
    """Another change of the membership is under way: one at a time."""

    code = "change_pending"
    retryable = True


class Refused(RaftdError):
    """This caller may not do this here."""

    code = "refused"


class Unauthenticated(Refused):
    """The call carries no token, or a wrong one."""

    code = "unauthenticated"


class WrongIdentity(Refused):
    """Wrong cluster, wrong store or wrong node: both identities are in the message."""

    code = "wrong_identity"


class IncarnationLost(Refused):
    """The cluster has given up on this incarnation of an executor: it ends what it runs and comes back as a new one."""

    code = "incarnation_lost"


class OldCopy(IncarnationLost):
    """The cluster knows a later incarnation of this store: its data directory is an old copy, and the node must halt.

    Every incarnation is on the store's own disk before anybody hears of it.
    """

    code = "old_copy"


class StoreTwice(Refused):
    """Two processes speak as the same life of one store: the data directory of one is a copy of the other's.

    What one of them has promised the other does not know, so none of them may be that store any more.
    """

    code = "store_twice"


class FaultInjectionOff(Refused):
    """The node was started without fault injection."""

    code = "fault_injection_off"


class StorageError(RaftdError):
    """The disk refused, or holds something that is damaged, foreign or unknown; the message says what to do."""

    code = "storage"


class UnknownFormat(RaftdError):
    """Bytes carry a version that this build does not know: it halts rather than guess."""

    code = "unknown_format"


def _tree(root: type[RaftdError]) -> Iterator[type[RaftdError]]:
    yield root
    for branch in root.__subclasses__():
        yield from _tree(branch)


def from_code(code: str, message: str, try_: str = "") -> RaftdError:
    """The error that another node sent, by its wire code; a code of a newer version becomes a plain ``RaftdError``."""
    for kind in _tree(RaftdError):
        if kind.__module__ == __name__ and kind.code == code:
            return kind(message, try_=try_)
    return RaftdError(message, try_=try_)
