"""The SDK's error tree: one type for every code that a node may send, with its exit code.

What may live here: exception classes and the table from wire codes to them. No gRPC:
``raftctl.client.channel`` turns a gRPC status into one of these.

::

    ClientError (RaftctlError)          code, retryable
    ├── InvalidRequest                                                                        exit 2
    │   ├── UnknownKind  InvalidArguments  PayloadTooLarge
    ├── NotFound                                                                              exit 3
    │   ├── TaskNotFound  JobNotFound  NodeNotFound  BlobNotFound  LogsGone
    ├── Unavailable                     worth another try until the caller's time is up      exit 4
    │   ├── NoLeader  NotLeader  NoQuorum  OutcomeUnknown  DeadlinePassed  ShuttingDown  DiskFull
    │   ├── TransferFailed  PeerUnreachable
    │   └── NodeUnreachable             no connection, or no answer in time: said by the SDK itself
    ├── Rejected                                                                              exit 6
    │   ├── QueueFull  TooManyUncommitted  RequestIdConflict  RequestExpired  StaleToken  NameTaken
    │   ├── StoreRemoved  InvalidChange  ChangePending
    ├── Refused                                                                               exit 1
    │   ├── Unauthenticated  WrongIdentity  FaultInjectionOff
    ├── TaskFailed                      a result was asked for and there is none              exit 5
    │   ├── TaskCancelled               ... for it was cancelled; also a concurrent.futures.CancelledError
    ├── WaitTimedOut                    the task goes on                                      exit 124
    ├── ResultUnreadable                what a call returned cannot be unpickled here         exit 1
    ├── ClientClosed                    the client was closed first; the task goes on         exit 1
    └── BlobDamaged                     bytes do not have the digest that they were asked by  exit 1

    Unavailable, concurrent.futures.BrokenExecutor
    └── ClusterLost                     nobody has answered for so long that futures were given up
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from typing import ClassVar

from raftctl.errors import ExitCode, RaftctlError


class ClientError(RaftctlError):
    """The root of what the SDK raises.

    Attributes:
        code: the wire code; empty for what the SDK says itself.
        retryable: whether another node, or the same one a little later, may answer otherwise.
    """

    code: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    exits_with: ClassVar[ExitCode] = ExitCode.ERROR

    def __init__(self, message: str, try_: str = "") -> None:
        super().__init__(message, try_, self.exits_with)


class InvalidRequest(ClientError):
    """What was asked can never work."""

    code = "invalid_request"
    exits_with = ExitCode.USAGE


class UnknownKind(InvalidRequest):
    """No node of the cluster has ever offered this kind of task."""

    code = "unknown_kind"


class InvalidArguments(InvalidRequest):
    """The kind's own check refuses these arguments."""

    code = "invalid_arguments"


class PayloadTooLarge(InvalidRequest):
    """A payload, an argument list, an environment or a message is over its limit."""

    code = "payload_too_large"


class NotFound(ClientError):
    """The named thing is not there."""

    code = "not_found"
    exits_with = ExitCode.NOT_FOUND


class TaskNotFound(NotFound):
    """No task has this id."""

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


class Unavailable(ClientError):
    """It may work later or elsewhere."""

    code = "unavailable"
    retryable = True
    exits_with = ExitCode.UNAVAILABLE


class NoLeader(Unavailable):
    """Nobody leads, as far as the asked nodes know."""

    code = "no_leader"


class NotLeader(Unavailable):
    """The asked node does not lead and did not forward."""

    code = "not_leader"


class NoQuorum(Unavailable):
    """A leader cannot reach a majority of the voters in time."""

    code = "no_quorum"


class OutcomeUnknown(Unavailable):
    """It was appended, then leadership was lost: it may or may not happen. The same request id is safe to resend."""

    code = "outcome_unknown"


class DeadlinePassed(Unavailable):
    """The node gave up at the deadline that the call carried."""

    code = "deadline_passed"


class ShuttingDown(Unavailable):
    """The node is about to stop."""

    code = "shutting_down"


class DiskFull(Unavailable):
    """The node's disk is full: it takes nothing new until there is room."""

    code = "disk_full"


class TransferFailed(Unavailable):
    """The leadership was not handed over in time; the leader goes on leading."""

    code = "transfer_failed"


class PeerUnreachable(Unavailable):
    """The asked node could not reach another that it needs."""

    code = "peer_unreachable"


class NodeUnreachable(Unavailable):
    """The node refuses the connection or does not answer in time."""

    code = ""


class Rejected(ClientError):
    """Understood and possible, but refused in the present state."""

    code = "rejected"
    exits_with = ExitCode.REJECTED


class QueueFull(Rejected):
    """The queue is at its limit: try again when it is shorter."""

    code = "queue_full"


class TooManyUncommitted(Rejected):
    """Too many bytes wait for a quorum: try again later."""

    code = "too_many_uncommitted"


class RequestIdConflict(Rejected):
    """This request id was used for another request."""

    code = "request_id_conflict"


class RequestExpired(Rejected):
    """The request id is older than the cluster's memory: whether it was accepted once, nobody can say any more."""

    code = "request_expired"


class StaleToken(Rejected):
    """The attempt is not the current one of its task."""

    code = "stale_token"


class NameTaken(Rejected):
    """The name belongs to something else."""

    code = "name_taken"


class StoreRemoved(Rejected):
    """The store was removed from the cluster: it never comes back."""

    code = "store_removed"


class InvalidChange(Rejected):
    """The membership cannot be changed so."""

    code = "invalid_change"


class ChangePending(Rejected):
    """Another change of the membership is under way: one at a time."""

    code = "change_pending"


class Refused(ClientError):
    """This caller may not do this here."""

    code = "refused"


class Unauthenticated(Refused):
    """The call carried no token, or a wrong one."""

    code = "unauthenticated"


class WrongIdentity(Refused):
    """Wrong cluster, wrong store or wrong node."""

    code = "wrong_identity"


class FaultInjectionOff(Refused):
    """The node was started without fault injection."""

    code = "fault_injection_off"


class TaskFailed(ClientError):
    """The task that a result was asked of failed or was cancelled."""

    exits_with = ExitCode.TASK_FAILED


class TaskCancelled(TaskFailed, CancelledError):
    """The task was cancelled after it had begun."""


class ClusterLost(Unavailable, BrokenExecutor):
    """No node has answered for so long that the futures of a client were given up; their tasks may go on."""

    code = ""


class ResultUnreadable(ClientError):
    """What a call returned or raised cannot be unpickled in this process."""


class ClientClosed(ClientError):
    """The client was closed before the call ended; its task goes on."""


class WaitTimedOut(ClientError):
    """What was waited for has not come in time; it goes on."""

    exits_with = ExitCode.WAIT_TIMED_OUT


class BlobDamaged(ClientError):
    """The bytes that came are not those that were asked for."""


def _below(parent: type[ClientError]) -> Iterator[type[ClientError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from _below(child)


_BY_CODE: dict[str, type[ClientError]] = {kind.code: kind for kind in _below(ClientError) if kind.code}


def from_code(code: str, message: str, try_: str = "") -> ClientError:
    """The error that a node's code stands for; a code that this build does not know becomes a plain `ClientError`."""
    return _BY_CODE.get(code, ClientError)(message, try_)
