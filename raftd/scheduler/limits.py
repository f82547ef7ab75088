"""Fixed limits of what a record may hold, where more than one rule needs them.

What may live here: numbers. Those that can be set are ``model.Settings``.
"""

from __future__ import annotations

MAX_KIND_CHARS = 64

MAX_SLOTS = 1_024
"""Of one node, and of one task."""

MAX_LABELS = 64
"""Of one node, and that one task may require."""
