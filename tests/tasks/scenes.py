"""A small user's scene on disk, for tests: an included camera, a mesh as PLY and one as OBJ, a texture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SCENE = """<scene version="3.0.0">
  <default name="depth" value="5"/>
  <!-- <string name="filename" value="commented/out.ply"/> -->
  <integrator type="path">
    <integer name="max_depth" value="$depth"/>
    <float name="timeout" value="0.001"/>
  </integrator>
  <include filename="parts/camera.xml"/>
  <emitter type="constant"><rgb name="radiance" value="0.7, 0.8, 1.0"/></emitter>
  <bsdf type="twosided" id="checked"><bsdf type="diffuse">
    <texture type="bitmap" name="reflectance"><string name="filename" value="parts/checks.png"/></texture>
  </bsdf></bsdf>
  <shape type="ply"><string name="filename" value="meshes/triangle.ply"/><ref id="checked"/></shape>
  <shape type="obj">
    <string name="filename" value="./meshes/../meshes/floor.obj"/><ref id="checked"/>
  </shape>
</scene>
"""

CAMERA = """<scene version="3.0.0">
  <sensor type="perspective">
    <float name="fov" value="45"/>
    <transform name="to_world"><lookat origin="0, 1, 4" target="0, 0.5, 0" up="0, 1, 0"/></transform>
    <film type="hdrfilm">
      <integer name="width" value="777"/><integer name="height" value="333"/>
      <string name="pixel_format" value="luminance"/><rfilter type="gaussian"/>
    </film>
    <sampler type="multijitter"><integer name="sample_count" value="1000"/></sampler>
  </sensor>
</scene>
"""

TRIANGLE = """ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
property float u
property float v
element face 1
property list uchar int vertex_indices
end_header
-1 0 0 0 0
1 0 0 1 0
0 1.5 0 0.5 1
3 0 1 2
"""

FLOOR = """v -3 0 -3
v 3 0 -3
v 3 0 3
v -3 0 3
vt 0 0
vt 1 0
vt 1 1
vt 0 1
f 1/1 4/4 3/3 2/2
"""


def write_scene(directory: Path) -> Path:
    """Writes the scene and everything it names; returns its XML file."""
    for name, text in {
        "scene.xml": SCENE,
        "parts/camera.xml": CAMERA,
        "meshes/triangle.ply": TRIANGLE,
        "meshes/floor.obj": FLOOR,
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (directory / "parts/checks.png").write_bytes(checks_png(4))
    return directory / "scene.xml"


def checks_png(side: int) -> bytes:
    """A chessboard as an 8-bit RGB PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colours = (b"\xd0\x30\x20", b"\xf0\xe8\xd8")
    rows = b"".join(b"\0" + b"".join(colours[(x + y) % 2] for x in range(side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
