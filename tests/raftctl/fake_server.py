"""A cluster that does what a test tells it: real gRPC servers in threads, over a state that is a few dicts.

It keeps the promises that the client relies on (request ids, log order, pages, the trailing metadata of
failures) and breaks whatever a test asks it to break: a node that refuses, hangs, lies about bytes, or is
gone.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from raftctl.endpoints import Endpoints
from raftd.pb import admin_pb2, blobs_pb2, scheduler_pb2
from tests.raftctl.fake_members import FakeMembership, MemberHandlers

TOKEN = "let-me-in"
CHANGES = ("AddMember", "PromoteMember", "RemoveMember", "TransferLeadership")
_ENDED = (
    scheduler_pb2.TASK_STATE_SUCCEEDED,
    scheduler_pb2.TASK_STATE_FAILED,
    scheduler_pb2.TASK_STATE_CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call ends: a gRPC status and what stands in its trailing metadata."""

    code: str
    message: str = "scripted"
    status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    try_: str = ""
    after_applying: bool = False  # the command is applied first: the caller cannot know


@dataclass
class FakeNode:
    """One node: what it believes, and how it misbehaves. Everything is guarded by the cluster's condition."""

    name: str
    address: str
    server: grpc.Server
    role: str = "follower"
    term: int = 1
    applied: int = 0
    believes_in: str = ""  # the leader, as far as this node knows
    pid: int = 0
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Failure] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    silent_watch: bool = False
    watches: int = 0  # streams that are open at this node
    damaged: set[str] = field(default_factory=set)  # blobs that it sends wrong bytes for
    cuts: list[tuple[str, str]] = field(default_factory=list)
    disk_full: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)


EVERYTHING = "*"
"""Among what a node hangs in: every method."""


class FakeCluster:
    """Some nodes over one state. Use it as a context manager."""

    def __init__(self, size: int = 3, *, token: str = TOKEN) -> None:
        self.token = token
        self.changed = threading.Condition()
        self.tasks: dict[str, scheduler_pb2.Task] = {}
        self.jobs: dict[str, list[str]] = {}
        self.payloads: dict[str, bytes] = {}
        self.by_request: dict[str, scheduler_pb2.Accepted] = {}
        self.changes: list[scheduler_pb2.Change] = []
        self.forgotten_before = 0  # changes with a lower index are gone
        self.blobs: dict[str, bytes] = {}
        self.logs: dict[str, list[tuple[bool, bytes]]] = defaultdict(list)
        self.batches: list[int] = []  # how many submissions each Submit call carried
        self.kinds = {"noop", "sleep", "render-tile"}
        self.index = 1
        self.leader: str = "n1"
        self.nodes: dict[str, FakeNode] = {}
        self.membership = FakeMembership()
        self._threads = ThreadPoolExecutor(max_workers=48, thread_name_prefix="fake-node")
        for number in range(1, size + 1):
            self._start_node(f"n{number}", 9000 + number)
        self.membership.found(self.nodes.values())
        self.lead("n1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            self.stop(node.name)
        self._threads.shutdown(wait=True)

    @property
    def endpoints(self) -> Endpoints:
        """How to reach it."""
        return Endpoints(tuple((node.name, node.address) for node in self.nodes.values()), self.token, "fake")

    # --- what a test does to it ---------------------------------------------------------------------------------------

    def lead(self, name: str, *, term: int | None = None) -> None:
        """Makes a node the leader, in the eyes of all that are not told otherwise."""
        with self.changed:
            self.leader = name
            for node in self.nodes.values():
                node.role = "leader" if node.name == name else "follower"
                node.believes_in = name
                node.term = term if term is not None else node.term
            self.changed.notify_all()

    def no_leader(self, *names: str) -> None:
        """These nodes (none: all) know of no leader and say so."""
        with self.changed:
            for name in names or self.nodes:
                node = self.nodes[name]
                node.role, node.believes_in = "follower", ""
                for method in ("Submit", "Cancel", "Get", "GetJob", "List", "Status", *CHANGES):
                    node.always[method] = Failure("no_leader", f"{name} knows of no leader")

    def pause(self, name: str) -> None:
        """The node answers nothing more; connections to it stay, and new ones are let in."""
        self.nodes[name].hangs.add(EVERYTHING)

    def stop(self, name: str) -> None:
        """The node is gone: its port refuses."""
        node = self.nodes[name]
        node.stopped.set()
        with self.changed:
            self.changed.notify_all()
        node.server.stop(0).wait()

    def end(
        self,
        task_id: str,
        state: scheduler_pb2.TaskState.ValueType = scheduler_pb2.TASK_STATE_SUCCEEDED,
        inline: bytes | None = b"",
        blob: bytes | None = None,
        reason: str = "",
    ) -> None:
        """A task ends on n2, with a result."""
        with self.changed:
            task = self.tasks[task_id]
            if task.state in _ENDED:
                return
            task.state = state
            task.reason = reason
            task.finished_at_ms = 1_700_000_002_000
            outcome = (
                scheduler_pb2.ATTEMPT_OUTCOME_SUCCEEDED
                if not reason
                else scheduler_pb2.ATTEMPT_OUTCOME_FAILED
            )
            task.attempts.add(
                number=len(task.attempts) + 1,
                node="n2",
                fencing_token=scheduler_pb2.FencingToken(epoch=1, counter=self.index + 1),
                outcome=outcome,
                started_at_ms=1_700_000_001_000,
                ended_at_ms=1_700_000_002_000,
            )
            if blob is not None:
                digest = hashlib.sha256(blob).hexdigest()
                self.blobs[digest] = blob
                task.result.blob.digest = digest
                task.result.blob.size_bytes = len(blob)
            elif inline is not None and (inline or state == scheduler_pb2.TASK_STATE_SUCCEEDED):
                task.result.inline = inline
            self._change(scheduler_pb2.TaskState.Name(state).removeprefix("TASK_STATE_").lower(), task)

    def all_watched(self) -> int:
        """How many watch streams are open."""
        with self.changed:
            return sum(node.watches for node in self.nodes.values() if not node.stopped.is_set())

    # --- the state ----------------------------------------------------------------------------------------------------

    def _change(self, what: str, task: scheduler_pb2.Task) -> None:
        self.index += 1
        task.changed_index = self.index
        change = scheduler_pb2.Change(index=self.index, time_ms=1_700_000_000_000, change=what)
        change.task.CopyFrom(task)
        self.changes.append(change)
        self.changed.notify_all()

    def _accept(self, submission: scheduler_pb2.Submission) -> scheduler_pb2.SubmitReply:
        reply = scheduler_pb2.SubmitReply(request_id=submission.request_id)
        known = self.by_request.get(submission.request_id)
        if known is not None:
            reply.accepted.CopyFrom(known)
            reply.accepted.duplicate = True
            return reply
        if submission.kind not in self.kinds:
            reply.refusal.code = "unknown_kind"
            reply.refusal.message = f"no node offers {submission.kind!r}"
            return reply
        if submission.HasField("array"):
            indices = range(submission.array.first_index, submission.array.last_index + 1)
            job_id = f"j{len(self.jobs) + 1}"
            self.jobs[job_id] = [self._add(submission, job_id, index) for index in indices]
            reply.accepted.job_id = job_id
            reply.accepted.task_ids.extend(self.jobs[job_id])
        else:
            reply.accepted.task_id = self._add(submission, "", None)
        self.by_request[submission.request_id] = reply.accepted
        return reply

    def _add(self, submission: scheduler_pb2.Submission, job_id: str, index: int | None) -> str:
        task = scheduler_pb2.Task(
            task_id=f"t{len(self.tasks) + 1}",
            name=submission.name,
            kind=submission.kind,
            args=[arg.replace("{}", str(index)) if index is not None else arg for arg in submission.args],
            env=submission.env,
            priority=submission.priority,
            state=scheduler_pb2.TASK_STATE_PENDING,
            job_id=job_id,
            request_id=submission.request_id,
            submitted_at_ms=1_700_000_000_000,
            retries=submission.retries,
            run_timeout_ms=submission.run_timeout_ms,
        )
        if index is not None:
            task.array_index = index
        self.tasks[task.task_id] = task
        self.payloads[task.task_id] = submission.payload
        self._change("submitted", task)
        return task.task_id

    def _read(self, node: FakeNode, *, stale: bool) -> scheduler_pb2.ReadInfo:
        return scheduler_pb2.ReadInfo(
            stale=stale,
            applied_index=node.applied if stale and node.applied else self.index,
            answered_by=node.name if stale else self.leader,
            leader=node.believes_in if stale else self.leader,
            term=node.term,
        )

    # --- the nodes ----------------------------------------------------------------------------------------------------

    def _start_node(self, name: str, pid: int) -> None:
        server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        node = FakeNode(name, f"127.0.0.1:{port}", server, pid=pid)
        for service, methods in _services(self, node).items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        server.start()
        self.nodes[name] = node

    def enter(self, node: FakeNode, method: str, context: grpc.ServicerContext) -> Failure | None:
        """Checks the token, counts the call, hangs or fails it if told to. Returns a failure that comes afterwards."""
        with self.changed:
            node.calls[method] += 1
            failure = node.failures[method].pop(0) if node.failures[method] else node.always.get(method)
        carried = dict(context.invocation_metadata()).get("authorization", "")
        if self.token and carried != f"Bearer {self.token}":
            self.fail(
                context,
                node,
                Failure("unauthenticated", "a token is needed", grpc.StatusCode.UNAUTHENTICATED),
            )
        if method in node.hangs or EVERYTHING in node.hangs:
            node.stopped.wait()
        if failure is not None and not failure.after_applying:
            self.fail(context, node, failure)
        return failure

    def fail(self, context: grpc.ServicerContext, node: FakeNode, failure: Failure) -> NoReturn:
        """Ends a call as `failure` says; names the leader if this node knows one that is not itself."""
        trailing: list[tuple[str, str | bytes]] = [("raftd-error", failure.code)] if failure.code else []
        if failure.try_:
            trailing.append(("raftd-try", failure.try_))
        if failure.code == "not_leader" and node.believes_in:
            trailing.append(("raftd-leader", f"{node.believes_in}={self.nodes[node.believes_in].address}"))
        context.set_trailing_metadata(tuple(trailing))
        context.abort(failure.status, failure.message)
        raise AssertionError("abort raises")


Handler = Callable[[Any, grpc.ServicerContext], Any]


def _services(cluster: FakeCluster, node: FakeNode) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """gRPC handlers for every method of every service that `_Handlers` implements."""
    handlers = _Handlers(cluster, node)
    found: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for module, name in ((scheduler_pb2, "Scheduler"), (admin_pb2, "Admin"), (blobs_pb2, "Blobs")):
        service = module.DESCRIPTOR.services_by_name[name]
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.methods:
            handler = getattr(handlers, method.name if name != "Blobs" else f"Blob{method.name}", None)
            if handler is None:
                continue
            made: Any = {
                (False, False): grpc.unary_unary_rpc_method_handler,
                (False, True): grpc.unary_stream_rpc_method_handler,
                (True, False): grpc.stream_unary_rpc_method_handler,
            }[method.client_streaming, method.server_streaming]
            message = getattr(module, method.input_type.name, None) or getattr(
                scheduler_pb2, method.input_type.name
            )
            methods[method.name] = made(
                handler,
                request_deserializer=message.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
        found[service.full_name] = methods
    return found


class _Handlers(MemberHandlers):
    """What one node answers."""

    def __init__(self, cluster: FakeCluster, node: FakeNode) -> None:
        self.cluster = cluster
        self.node = node

    def Submit(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        late = cluster.enter(self.node, "Submit", context)
        with cluster.changed:
            cluster.batches.append(len(request.submissions))
            replies = [cluster._accept(submission) for submission in request.submissions]
        if late is not None:
            cluster.fail(context, self.node, late)
        return scheduler_pb2.SubmitResponse(replies=replies)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        cluster.enter(self.node, "Cancel", context)
        response = scheduler_pb2.CancelResponse()
        with cluster.changed:
            for one in request.ids:
                reply = response.replies.add(id=one)
                ids = cluster.jobs.get(one, [one])
                if any(task_id not in cluster.tasks for task_id in ids):
                    reply.refusal.code, reply.refusal.message = "task_not_found", f"no task {one}"
                    continue
                for task_id in ids:
                    task = cluster.tasks[task_id]
                    if task.state not in _ENDED:
                        task.state = scheduler_pb2.TASK_STATE_CANCELLED
                        reply.cancelled_count += 1
                        cluster._change("cancelled", task)
                    reply.state = task.state
        return response

    def Get(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        if not request.options.stale:
            cluster.enter(self.node, "Get", context)
        with cluster.changed:
            task = cluster.tasks.get(request.task_id)
            if task is None:
                missing = Failure("task_not_found", f"no task {request.task_id}", grpc.StatusCode.NOT_FOUND)
                cluster.fail(context, self.node, missing)
            return scheduler_pb2.GetResponse(
                task=task, read=cluster._read(self.node, stale=request.options.stale)
            )

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        cluster.enter(self.node, "GetJob", context)
        with cluster.changed:
            ids = cluster.jobs.get(request.job_id)
            if ids is None:
                missing = Failure("job_not_found", f"no job {request.job_id}", grpc.StatusCode.NOT_FOUND)
                cluster.fail(context, self.node, missing)
            states = Counter(cluster.tasks[task_id].state for task_id in ids)
            job = scheduler_pb2.Job(
                job_id=request.job_id,
                kind=cluster.tasks[ids[0]].kind,
                total=len(ids),
                pending=states[scheduler_pb2.TASK_STATE_PENDING],
                running=states[scheduler_pb2.TASK_STATE_RUNNING],
                succeeded=states[scheduler_pb2.TASK_STATE_SUCCEEDED],
                failed=states[scheduler_pb2.TASK_STATE_FAILED],
                cancelled=states[scheduler_pb2.TASK_STATE_CANCELLED],
                first_task_id=int(ids[0][1:]),
            )
            return scheduler_pb2.GetJobResponse(job=job, read=cluster._read(self.node, stale=False))

    def List(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        cluster.enter(self.node, "List", context)
        with cluster.changed:
            wanted = [
                task
                for task in cluster.tasks.values()
                if (not request.states or task.state in request.states)
                and (not request.job_id or task.job_id == request.job_id)
            ]
            start = int(request.page_token or 0)
            end = start + (request.page_size or 100)
            return scheduler_pb2.ListResponse(
                tasks=wanted[start:end],
                next_page_token=str(end) if end < len(wanted) else "",
                read=cluster._read(self.node, stale=request.options.stale),
            )

    def Status(self, request: Any, context: grpc.ServicerContext) -> Any:
        cluster = self.cluster
        stale = request.options.stale
        if not stale:
            cluster.enter(self.node, "Status", context)
        elif "StaleStatus" in self.node.hangs:
            self.node.stopped.wait()
        with cluster.changed:
            read = cluster._read(self.node, stale=stale)
            states = Counter(task.state for task in cluster.tasks.values())
            response = scheduler_pb2.StatusResponse(
                cluster_id="00000000000000c1",
                leader=read.leader,
                term=read.term,
                commit_index=read.applied_index,
                read=read,
                pending=states[scheduler_pb2.TASK_STATE_PENDING],
                succeeded=states[scheduler_pb2.TASK_STATE_SUCCEEDED],
                failed=states[scheduler_pb2.TASK_STATE_FAILED],
            )
            voters = len(cluster.nodes)
            up = sum(not node.stopped.is_set() for node in cluster.nodes.values())
            response.quorum.voters, response.quorum.up, response.quorum.ok = voters, up, up > voters // 2
            for node in cluster.nodes.values():
                gone = node.stopped.is_set()
                response.nodes.add(
                    name=node.name,
                    role="voter",
                    raft_role="leader" if node.name == read.leader else "follower",
                    health="up",
                    eligibility="ready",
                    address=node.address,
                    slots=1,
                    slots_free=1,
                    reachable=not gone,
                )
                response.free_nodes.add(node=node.name, role="voter", slots_free=1, slots=1, last_seen_ms=100)
            response.recent.extend(task for task in cluster.tasks.values() if task.state in _ENDED)
            waiting = [task for task in cluster.tasks.values() if task.state not in _ENDED]
            response.next_pending.extend(waiting[: request.recent_count])
            return response

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        cluster = self.cluster
        cluster.enter(self.node, "Watch", context)
        position = request.from_index or cluster.index + 1
        if position < cluster.forgotten_before:
            position = cluster.forgotten_before
            yield scheduler_pb2.WatchResponse(next_index=position, gap=True)
        with cluster.changed:
            self.node.watches += 1
            cluster.changed.notify_all()
        try:
            while context.is_active() and not self.node.stopped.is_set():
                with cluster.changed:
                    found = [
                        change
                        for change in cluster.changes
                        if change.index >= position
                        and not self.node.silent_watch
                        and request.job_id in ("", change.task.job_id)
                        and request.task_id in ("", change.task.task_id)
                    ]
                    if not found:
                        cluster.changed.wait(0.05)
                        continue
                    position = max(position, found[-1].index + 1)
                yield scheduler_pb2.WatchResponse(changes=found, next_index=position)
        finally:
            with cluster.changed:
                self.node.watches -= 1

    def Logs(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.cluster.enter(self.node, "LogsStart", context)
        for is_error, data in self.cluster.logs[request.task_id]:
            yield scheduler_pb2.LogsResponse(
                stream=scheduler_pb2.LOG_STREAM_STDERR if is_error else scheduler_pb2.LOG_STREAM_STDOUT,
                data=data,
                node=self.node.name,
                attempt=1,
            )
            self.cluster.enter(self.node, "Logs", context)

    def NodeInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "NodeInfo", context)
        node = self.node
        return admin_pb2.NodeInfoResponse(
            name=node.name,
            cluster_id="00000000000000c1",
            store_id=f"{node.pid:016x}",
            address=node.address,
            pid=node.pid,
            version="0.1.0",
            role=node.role,
            leader=node.believes_in,
            leader_address=self.cluster.nodes[node.believes_in].address if node.believes_in else "",
            membership="voter",
            disk_full=node.disk_full,
            term=node.term,
            commit_index=self.cluster.index,
            last_applied=self.cluster.index,
            last_index=self.cluster.index,
            peers=[
                admin_pb2.PeerProgress(
                    name=other, match_index=self.cluster.index, next_index=self.cluster.index + 1
                )
                for other in self.cluster.nodes
                if node.role == "leader" and other != node.name
            ],
        )

    def GetFaults(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "GetFaults", context)
        cuts = [admin_pb2.Cut(from_node=a, to_node=b) for a, b in self.node.cuts]
        return admin_pb2.GetFaultsResponse(fault_injection=True, cuts=cuts)

    def SetFaults(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "SetFaults", context)
        if request.heal:
            self.node.cuts.clear()
        self.node.cuts += [(cut.from_node, cut.to_node) for cut in request.add]
        return admin_pb2.SetFaultsResponse(
            cuts=[admin_pb2.Cut(from_node=a, to_node=b) for a, b in self.node.cuts]
        )

    def BlobPut(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "BlobPut", context)
        data = b"".join(request.data for request in requests)
        digest = hashlib.sha256(data).hexdigest()
        self.cluster.blobs[digest] = data
        return blobs_pb2.PutResponse(
            blob=scheduler_pb2.BlobRef(digest=digest, size_bytes=len(data)), holders=[self.node.name]
        )

    def BlobGet(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.cluster.enter(self.node, "BlobGet", context)
        data = self.cluster.blobs.get(request.digest)
        if data is None:
            self.cluster.fail(
                context, self.node, Failure("blob_not_found", "gone", grpc.StatusCode.NOT_FOUND)
            )
        if request.digest in self.node.damaged:
            data = data[:-1] + b"?"
        for start in range(0, len(data), 1000):
            yield blobs_pb2.GetBlobResponse(size_bytes=len(data), data=data[start : start + 1000])

    def BlobStat(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cluster.enter(self.node, "BlobStat", context)
        data = self.cluster.blobs[request.digest]
        return blobs_pb2.StatBlobResponse(
            blob=scheduler_pb2.BlobRef(digest=request.digest, size_bytes=len(data)),
            holders=["n1", "n2"],
            local=True,
        )
