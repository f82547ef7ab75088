"""Packs a user's Mitsuba scene into one blob: a zip of the XML and of every file that it names.

Names are rewritten to ones inside the zip (``files/<digest>-<name>``), so that it neither matters nor shows where
things lay on this machine. The zip is a function of the files' contents alone: sorted, stored without compression and
with a fixed time, so that the same scene is the same blob, whoever sends it.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Final

ROOT_NAME: Final = "scene.xml"
MAX_INCLUDE_DEPTH: Final = 15
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class BundleError(ValueError):
    """The scene cannot be shipped; the message names the file or the line of XML that stands in the way."""


def make_bundle(scene: Path) -> bytes:
    """Packs a scene.

    Args:
        scene: the XML file; files that it names are looked for beside the file that names them, then beside it.

    Returns:
        The zip; its SHA-256 is the digest to submit as ``--scene blob:<sha256>``.

    Raises:
        BundleError: the XML is malformed, a file is missing, or a name is computed from a parameter.
        OSError: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    files[ROOT_NAME] = _rewrite(scene, scene.parent, files, depth=0)
    return _zip(files)


def _rewrite(document: Path, root: Path, files: dict[str, bytes], depth: int) -> bytes:
    """Adds what a document names to ``files``; returns its XML with the names inside the bundle."""
    if depth > MAX_INCLUDE_DEPTH:
        raise BundleError(
            f"{document}: includes are nested deeper than {MAX_INCLUDE_DEPTH} (do they form a circle?)"
        )
    try:
        tree = ET.fromstring(document.read_bytes())
    except (ET.ParseError, ValueError, LookupError) as error:
        raise BundleError(f"{document}: not well-formed XML: {error}") from error
    if tree.tag != "scene":
        raise BundleError(f"{document}: no Mitsuba scene, its root is <{tree.tag}>")
    for element in tree.iter():
        if element.tag == "path":
            raise BundleError(
                f"{document}: <path> adds a search path; name files relative to the scene instead"
            )
        attribute = _name_attribute(element)
        if attribute is None:
            continue
        source = _find(element.get(attribute, ""), document, root)
        content = (
            _rewrite(source, root, files, depth + 1) if element.tag == "include" else source.read_bytes()
        )
        name = _name_inside(source, content)
        files[name] = content
        element.set(attribute, name)
    rewritten: bytes = ET.tostring(tree, encoding="utf-8", xml_declaration=True)
    return rewritten


def _name_attribute(element: ET.Element) -> str | None:
    if "filename" in element.attrib:
        return "filename"
    if element.tag == "string" and element.get("name", "").endswith("filename"):
        return "value"
    return None


def _find(name: str, document: Path, root: Path) -> Path:
    if not name or "$" in name:
        raise BundleError(f"{document}: names a file as {name!r}: only a literal path can be shipped")
    for directory in (document.parent, root):
        candidate = directory / name
        if candidate.is_file():
            return candidate
    raise BundleError(f"{document}: names a file that is not there: {name}")


def _name_inside(source: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()[:16]
    # The suffix stays: the renderer tells formats apart by it.
    return f"files/{digest}-{_UNSAFE.sub('_', source.name)}"


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # Stored, not deflated: the compressed bytes would depend on the version of zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()
