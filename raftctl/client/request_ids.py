"""Request ids: what makes a submission that is sent twice one task.

An id made here carries its time of creation, so that a cluster which has forgotten old ids can refuse one
that is older than its memory instead of running it again.
"""

from __future__ import annotations

import secrets
import time


def new_request_id() -> str:
    """``<milliseconds since 1970, 12 hex digits>-<80 random bits, hex>``."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(10)}"
