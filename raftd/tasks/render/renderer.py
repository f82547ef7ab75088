"""Mitsuba, held in one place: loading a scene once and rendering many crops of it.

Mitsuba is imported when the first scene is loaded, never when this module is: a slot that renders nothing pays
nothing. What keeps a tile's bytes a function of its request alone lives here too:

- one thread, and blocks of a fixed size: Mitsuba cuts a crop into blocks and seeds each by its number, and would
  otherwise choose their size from the number of threads;
- a box filter, so that no pixel reaches over the edge of its tile;
- the independent sampler, reseeded for every render, so that no tile leaves a trace in the next one.

The bytes are equal between processes on the same version of Mitsuba and the same type of CPU; its ray tracing kernel
picks the widest vector instructions it finds.
"""

from __future__ import annotations

import array
import functools
import sys
from pathlib import Path
from typing import Any, Final

from raftd.errors import InvalidRequest, RaftdError
from raftd.tasks.render import scene
from raftd.tasks.render.frame import FrameSpec, TileRect

VARIANT: Final = "scalar_rgb"
BLOCK_SIZE_PIXELS: Final = 16
CHANNELS: Final = 3
_IMPORT_HINT: Final = "on Debian and Ubuntu its wheel needs the package libatomic1"


class LoadedScene:
    """A scene in memory, ready to render crops of a frame one after the other. Not for several threads at once."""

    def __init__(self, mitsuba_scene: Any) -> None:
        self._scene = mitsuba_scene
        self._sensor = mitsuba_scene.sensors()[0]
        self._parameters = _mitsuba().traverse(self._sensor)

    def render(self, rect: TileRect, samples: int, seed: int) -> bytes:
        """Renders a crop.

        Returns:
            Linear RGB, three little-endian float32 a pixel, row by row from the top left.

        Raises:
            InvalidRequest: the scene's integrator or film does not give three channels.
        """
        self._parameters["film.crop_offset"] = [rect.x, rect.y]
        self._parameters["film.crop_size"] = [rect.width, rect.height]
        self._parameters.update()
        image = _mitsuba().render(self._scene, sensor=self._sensor, spp=samples, seed=seed)
        if tuple(image.shape) != (rect.height, rect.width, CHANNELS):
            raise InvalidRequest(
                f"the scene renders an image of shape {tuple(image.shape)}, not of three channels"
            )
        values = array.array("f", image.array)
        if sys.byteorder == "big":
            values.byteswap()
        return values.tobytes()


def load_spheres(frame: FrameSpec) -> LoadedScene:
    """Loads the built-in scene for a frame of this size and seed."""
    mi = _mitsuba()
    look_at = mi.ScalarTransform4f().look_at(
        origin=list(scene.CAMERA_ORIGIN), target=list(scene.CAMERA_TARGET), up=[0, 1, 0]
    )
    camera = scene.camera_dict(look_at) | {
        "film": {
            "type": "hdrfilm",
            "width": frame.width,
            "height": frame.height,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
            "component_format": "float32",
        },
        "sampler": {"type": "independent"},
    }
    integrator = {"type": "path", "max_depth": scene.MAX_DEPTH, "block_size": BLOCK_SIZE_PIXELS}
    sky = {"type": "envmap", "bitmap": _sky_bitmap()}
    whole = scene.scene_dict(frame.seed) | {"integrator": integrator, "sky": sky, "camera": camera}
    return LoadedScene(mi.load_dict(whole, parallel=False))


def load_xml(prepared: Path) -> LoadedScene:
    """Loads a user's scene that ``bundle.prepare`` has checked and fitted to the frame.

    Raises:
        InvalidRequest: Mitsuba refuses it; its own words are in the message.
    """
    mi = _mitsuba()
    try:
        return LoadedScene(mi.load_file(str(prepared), parallel=False))
    except RuntimeError as error:
        raise InvalidRequest(f"the scene does not load: {error}") from error


@functools.cache
def _mitsuba() -> Any:
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise RaftdError(f"the renderer does not load on this node: {error}", try_=_IMPORT_HINT) from error
    mitsuba.set_variant(VARIANT)
    # One thread a slot: the node decides how many slots share its CPUs, not the renderer. The number is that of
    # helpers: with 1, Mitsuba 3.6 keeps two threads busy; with 0, every version does all the work in the caller.
    drjit.set_thread_count(0)
    return mitsuba


def _sky_bitmap() -> Any:
    mi = _mitsuba()
    rows = [array.array("f", scene.sky_row(row)) for row in range(scene.SKY_HEIGHT)]
    if sys.byteorder == "big":
        for row in rows:
            row.byteswap()
    # PFM is the one image format that is nothing but a line of text and the floats; its rows go from the bottom up.
    header = f"PF\n{scene.SKY_WIDTH} {scene.SKY_HEIGHT}\n-1.0\n".encode()
    stream = mi.MemoryStream()
    stream.write(header + b"".join(row.tobytes() for row in reversed(rows)))
    stream.seek(0)
    return mi.Bitmap(stream, mi.Bitmap.FileFormat.PFM)
