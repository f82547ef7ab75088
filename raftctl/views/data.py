"""What ``-o json`` prints: plain values, made from the same models as the tables.

The keys are a contract (``docs/cli.md``): snake_case, times as `times.iso`, names as ``n1``, ids as ``t17``
and ``j3``, None where something is unknown or has not happened. Adding a key is fine, changing one is not.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from raftctl.client.explanations import Explanation
from raftctl.client.models import (
    Accepted,
    Attempt,
    Cancelled,
    Change,
    Job,
    NodeRow,
    Status,
    Task,
    TaskResult,
)
from raftctl.client.nodes import Membership, NodeInfo, Setting, SnapshotTaken
from raftctl.client.overview import ClusterView, leading
from raftctl.views.times import iso

Data = dict[str, Any]


def status(view: ClusterView, cluster: str) -> Data:
    """The whole picture."""
    found: Status = view.status
    return {
        "cluster": cluster or found.cluster_id,
        "cluster_id": found.cluster_id,
        "leader": found.leader,
        "term": found.term,
        "commit_index": found.commit_index,
        "applied_index": found.read.applied_index,
        "answered_by": found.read.answered_by,
        "quorum": {"voters": found.quorum.voters, "up": found.quorum.up, "ok": found.quorum.ok},
        "stale": view.stale,
        "executing": [
            {
                "node": row.node,
                "slot": row.slot,
                "task_id": row.task_id,
                "task": row.task,
                "attempt": row.attempt,
                "fencing_token": str(row.fencing_token),
                "elapsed_ms": row.elapsed_ms,
                "progress": row.progress,
                "message": row.message,
                "stopping": row.stopping,
            }
            for row in found.executing
        ],
        "free_nodes": [
            {
                "node": row.node,
                "role": row.role,
                "slots_free": row.slots_free,
                "slots": row.slots,
                "last_seen_ms": row.last_seen_ms,
            }
            for row in found.free_nodes
        ],
        "nodes": [node(row, answers=row.name in view.infos) for row in found.nodes],
        "pending": found.pending,
        "running": found.running,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "cancelled": found.cancelled,
        "next_pending": [task(one) for one in found.next_pending],
        "recent": [task(one) for one in found.recent],
    }


def node(row: NodeRow, *, answers: bool) -> Data:
    """One node; `answers` is whether it answered this client."""
    return {
        "id": row.name,
        "store_id": row.store_id,
        "role": row.role,
        "raft_role": row.raft_role,
        "health": row.health,
        "eligibility": row.eligibility,
        "address": row.address,
        "pid": row.pid,
        "answers": answers,
        "reachable": row.reachable,
        "incarnation": row.incarnation,
        "slots": row.slots,
        "slots_free": row.slots_free,
        "kinds": list(row.kinds),
        "last_seen_ms": row.last_seen_ms,
        "labels": dict(row.labels),
        "drain_deadline": iso(row.drain_deadline_ms),
        "reserved": row.reserved,
    }


def explanation(found: Explanation) -> Data:
    """Why a task is where it is."""
    return {
        "task_id": found.task.task_id,
        "state": str(found.task.state),
        "summary": found.summary,
        "waits": list(found.waits),
        "ahead": found.ahead_count,
        "stale": found.read.stale,
        "nodes": [
            {
                "node": one.node,
                "fits": one.fits,
                "available": one.available,
                "reasons": list(one.reasons),
            }
            for one in found.nodes
        ],
    }


def setting(found: Setting) -> Data:
    """One replicated setting."""
    return {
        "name": found.name,
        "value": found.value,
        "default": found.default,
        "least": found.least,
        "most": found.most,
    }


def attempt(found: Attempt) -> Data:
    """One attempt; its times are when the slot really ran it."""
    return {
        "number": found.number,
        "node": found.node,
        "slot": found.slot,
        "fencing_token": str(found.fencing_token),
        "outcome": str(found.outcome),
        "reason": found.reason,
        "stopping": found.stopping,
        "reserved": found.reserved,
        "extra_slots": list(found.extra_slots),
        "occupied_at": iso(found.occupied_ms),
        "started_at": iso(found.started_ms),
        "ended_at": iso(found.ended_ms),
    }


def result(found: TaskResult | None) -> Data | None:
    """A result by reference or by value: ``text`` when the bytes are text, else ``base64``."""
    if found is None:
        return None
    if found.blob is not None:
        return {"digest": found.blob.digest, "size_bytes": found.blob.size_bytes}
    inline = found.inline or b""
    try:
        return {"text": inline.decode("utf-8"), "size_bytes": len(inline)}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(inline).decode("ascii"), "size_bytes": len(inline)}


def task(found: Task) -> Data:
    """One task with its attempts."""
    return {
        "task_id": found.task_id,
        "name": found.name or None,
        "kind": found.kind,
        "args": list(found.args),
        "env": dict(found.env),
        "state": str(found.state),
        "reason": found.reason or None,
        "priority": found.priority,
        "retries": found.retries,
        "run_timeout_ms": found.run_timeout_ms or None,
        "queue_timeout_ms": found.queue_timeout_ms or None,
        "after": [{"id": one.id, "condition": str(one.condition)} for one in found.waiting_for],
        "require": dict(found.require),
        "slots": found.slots,
        "failures": found.failures,
        "crashes": found.crashes,
        "job_id": found.job_id,
        "array_index": found.array_index,
        "request_id": found.request_id,
        "submitted_at": iso(found.submitted_ms),
        "finished_at": iso(found.finished_ms),
        "not_before": iso(found.not_before_ms),
        "attempts": [attempt(one) for one in found.attempts],
        "result": result(found.result),
        "changed_index": found.changed_index,
    }


def job(found: Job) -> Data:
    """One job, counted."""
    return {
        "job_id": found.job_id,
        "name": found.name or None,
        "kind": found.kind or None,
        "graph": found.graph,
        "stopping": found.stopping,
        "total": found.total,
        "pending": found.pending,
        "running": found.running,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "cancelled": found.cancelled,
        "max_failures": found.max_failures or None,
        "submitted_at": iso(found.submitted_ms),
        "finished_at": iso(found.finished_ms),
        "task_ids": list(found.task_ids),
    }


def accepted(found: Accepted) -> Data:
    """What a submission became: a task, or an array of them."""
    common = {"request_id": found.request_id, "duplicate": found.duplicate}
    if found.job_id:
        return {"job_id": found.job_id, "task_ids": list(found.task_ids), **common}
    return {"task_id": found.task_id, **common}


def cancelled(found: Cancelled) -> Data:
    """What a cancel did."""
    return {
        "id": found.id,
        "state": None if found.state == "unknown" else str(found.state),
        "cancelled_count": found.cancelled_count,
        "error": None if found.error is None else str(found.error),
    }


def change(found: Change) -> Data:
    """One thing that happened."""
    last = found.task.last_attempt if found.task is not None else None
    return {
        "index": found.index,
        "at": iso(found.time_ms),
        "change": found.change,
        "task_id": found.task.task_id if found.task is not None else None,
        "task": found.task.title if found.task is not None else None,
        "state": str(found.task.state) if found.task is not None else None,
        "attempt": last.number if last is not None else None,
        "fencing_token": str(last.fencing_token) if last is not None else None,
        "node": found.node or (last.node if last is not None else None),
        "message": found.message or None,
    }


def node_info(found: NodeInfo) -> Data:
    """What a node's consensus core says."""
    return {
        "id": found.name,
        "cluster_id": found.cluster_id,
        "store_id": found.store_id,
        "incarnation": found.incarnation,
        "address": found.address,
        "pid": found.pid,
        "version": found.version,
        "raft_role": found.role,
        "leader": found.leader,
        "term": found.term,
        "voted_for": found.voted_for,
        "commit_index": found.commit_index,
        "last_applied": found.last_applied,
        "first_index": found.first_index,
        "last_index": found.last_index,
        "fsync_ms": found.fsync_ms,
        "storage_queue": found.storage_queue,
        "slots_ready": found.slots_ready,
        "fault_injection": found.fault_injection,
        "membership": found.membership,
        "snapshot_index": found.snapshot_index,
        "snapshot_bytes": found.snapshot_bytes,
        "disk_full": found.disk_full,
        "transfer_target": found.transfer_target,
        "started_at": iso(found.started_ms),
        "peers": [
            {
                "id": peer.name,
                "match_index": peer.match_index,
                "next_index": peer.next_index,
                "progress": peer.progress,
                "in_flight": peer.in_flight,
                "recently_active": peer.recently_active,
                "learner": peer.learner,
                "pending_snapshot": peer.pending_snapshot,
            }
            for peer in found.peers
        ],
    }


def raft(infos: Mapping[str, NodeInfo], silent: Iterable[str], cluster: str) -> Data:
    """Every node's consensus core, and who did not answer."""
    leader = leading(infos.values())
    return {
        "cluster": cluster,
        "leader": leader.name if leader is not None else None,
        "term": max((info.term for info in infos.values()), default=0),
        "nodes": [node_info(infos[name]) for name in sorted(infos)],
        "silent": sorted(silent),
    }


def membership(found: Membership, cluster: str) -> Data:
    """Who belongs to the cluster; `stale` unless the leader says so."""
    return {
        "cluster": cluster,
        "leader": found.answered_by if found.leads else None,
        "answered_by": found.answered_by,
        "stale": not found.leads,
        "joint": found.joint,
        "members": [
            {
                "id": member.name,
                "store_id": member.store_id,
                "address": member.address,
                "role": member.role,
                "voter": member.voter,
                "promote": member.promote,
                "replaces": member.replaces,
            }
            for member in found.members
        ],
        "removed_stores": list(found.removed_stores),
    }


def snapshot(found: SnapshotTaken, cluster: str) -> Data:
    """What a node wrote down and let go of."""
    return {
        "cluster": cluster,
        "node": found.node,
        "index": found.index,
        "term": found.term,
        "size_bytes": found.size_bytes,
        "first_index": found.first_index,
    }
