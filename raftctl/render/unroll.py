"""A frame as an array of tasks: the arguments that go to the cluster, and how many tasks they make."""

from __future__ import annotations

from dataclasses import dataclass

KIND = "render-tile"


@dataclass(frozen=True, slots=True)
class FrameOptions:
    """What the user asked for; None leaves a value to the cluster's default.

    Attributes:
        width, height: size of the frame in pixels.
        samples: camera rays per pixel.
        tiles: columns and rows of tiles.
        seed: of the scene and of the noise.
        scene: ``spheres``, or ``blob:<sha256>`` of a bundle in the blob store.
    """

    width: int | None = None
    height: int | None = None
    samples: int | None = None
    tiles: tuple[int, int] = (8, 8)
    seed: int | None = None
    scene: str | None = None

    @property
    def tile_count(self) -> int:
        """How many tasks the frame makes: the array is 0 to this, exclusive."""
        return self.tiles[0] * self.tiles[1]

    def array_args(self) -> list[str]:
        """The arguments of the array of tasks; ``{}`` is what the cluster replaces by the number of the tile."""
        args = ["{}", "--tiles", f"{self.tiles[0]}x{self.tiles[1]}"]
        for name in ("width", "height", "samples", "seed", "scene"):
            value = getattr(self, name)
            if value is not None:
                args += [f"--{name}", str(value)]
        return args


def parse_tiles(text: str) -> tuple[int, int]:
    """Reads ``8x8``.

    Raises:
        ValueError: it is not of the form COLUMNSxROWS.
    """
    columns, cross, rows = text.lower().partition("x")
    if not (cross and columns.isascii() and columns.isdigit() and rows.isascii() and rows.isdigit()):
        raise ValueError(f"tiles {text!r} is not of the form COLUMNSxROWS, for example 8x8")
    return int(columns), int(rows)
