"""Digests, names and sizes: what is refused, and how."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.blobs.ref import (
    FRAME_BYTES,
    BadBlobName,
    BadDigest,
    check_blob_name,
    check_digest,
    check_size,
    frames_of,
    ref_of,
)
from raftd.errors import InvalidArguments, PayloadTooLarge


def test_a_digest_is_64_lower_case_hex_digits() -> None:
    ref = ref_of(b"abc")
    assert ref.digest.startswith("ba7816bf")
    assert ref.size_bytes == 3
    assert check_digest(ref.digest) == ref.digest


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "ab",
        "A" * 64,
        "g" * 64,
        "a" * 63,
        "a" * 65,
        "../" + "a" * 61,
        "a" * 64 + "\n",
        "\u0661" * 64,
        "x" * 10_000,
    ],
)
def test_anything_else_is_refused_and_quoted_in_part(digest: str) -> None:
    with pytest.raises(BadDigest) as raised:
        check_digest(digest)
    assert len(raised.value.message) < 200


@pytest.mark.parametrize("name", ["scene.xml", "scenes/bunny/v1.zip", "Übung 1", "a" * 255])
def test_names_that_may_be_used(name: str) -> None:
    assert check_blob_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/abs",
        "a//b",
        "a/",
        ".",
        "..",
        "a/../b",
        "../../etc/passwd",
        "a\nb",
        "a\0b",
        "a\\b",
        "é" * 200,
        "\udc80",
    ],
)
def test_names_that_may_not(name: str) -> None:
    with pytest.raises(BadBlobName):
        check_blob_name(name)


def test_sizes() -> None:
    assert check_size(0, 10) == 0
    assert check_size(10, 10) == 10
    with pytest.raises(PayloadTooLarge, match="limit of 10"):
        check_size(11, 10)
    with pytest.raises(InvalidArguments):
        check_size(-1, 10)


@given(st.integers(0, 3 * FRAME_BYTES))
def test_frames_are_the_bytes(size: int) -> None:
    data = bytes(size)
    frames = list(frames_of(data))
    assert b"".join(frames) == data
    assert all(0 < len(frame) <= FRAME_BYTES for frame in frames)
