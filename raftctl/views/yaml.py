"""``-o yaml``: the values of ``-o json`` in the small part of YAML that needs no library.

Every scalar is written as JSON writes it, which YAML 1.2 reads alike; only mappings and lists take YAML's own
form.
"""

from __future__ import annotations

import json
from typing import Any


def to_yaml(value: Any) -> str:
    """The value as YAML, ending in a newline."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        out: list[str] = []
        for key, item in value.items():
            below = _lines(item)
            if _is_block(item):
                out += [f"{key}:", *(f"  {line}" for line in below)]
            else:
                out.append(f"{key}: {below[0]}")
        return out
    if isinstance(value, list) and value:
        out = []
        for item in value:
            first, *rest = _lines(item)
            out += [f"- {first}", *(f"  {line}" for line in rest)]
        return out
    return [json.dumps(value, ensure_ascii=False)]


def _is_block(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)
