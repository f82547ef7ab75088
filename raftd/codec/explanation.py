"""Why a task is where it is, as the API says it.

What may live here: one encoder.
"""

from __future__ import annotations

from raftd.codec.api import encode_task
from raftd.pb import scheduler_pb2 as pb
from raftd.scheduler.explain import Explanation


def encode_explanation(explanation: Explanation) -> pb.ExplainResponse:
    """An explanation; what it was read from is for the caller to add."""
    return pb.ExplainResponse(
        task=encode_task(explanation.task),
        summary=explanation.summary,
        waits=explanation.waits,
        ahead_count=explanation.ahead,
        nodes=[
            pb.NodeVerdict(
                node=verdict.node, fits=verdict.fits, available=verdict.available, reasons=verdict.reasons
            )
            for verdict in explanation.nodes
        ],
    )
