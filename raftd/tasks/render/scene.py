"""The built-in scene: the classic random field of small spheres with three big ones, under an evening sky.

Only plain data is made here: a nested ``dict`` that Mitsuba loads, so that this module can be read and tested without
a renderer. The field is a function of its seed alone: it draws from ``random.Random(seed).random()``, the one
generator whose sequence Python promises to keep, and never from a clock or from set order.

The composition (a 22 x 22 jittered grid, glass, matt and metal in the middle, a long lens close to the ground) follows
P. Shirley, "Ray Tracing in One Weekend", section 13. Unlike there, no two spheres overlap, and there are always 485.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

SceneDict = dict[str, Any]
"""What Mitsuba's ``load_dict`` takes: nested dictionaries of numbers, text and lists."""

SPHERE_COUNT: Final = 485
MAX_DEPTH: Final = 16
"""Bounces; glass balls in front of glass balls need more than a matt scene."""

GRID: Final = range(-11, 11)
SMALL_RADIUS: Final = 0.2
BIG_CENTRES: Final = (-4.0, 0.0, 4.0)
RESERVED_CELLS: Final = ((-4, 0), (0, 0), (4, 0))
"""Cells of the grid that the big spheres fill; 22 * 22 - 3 small ones remain."""

SKY_WIDTH: Final = 256
SKY_HEIGHT: Final = 128

Rgb = tuple[float, float, float]
Point = tuple[float, float, float]

_HORIZON: Rgb = (0.96, 0.80, 0.66)
_ZENITH: Rgb = (0.16, 0.40, 0.95)
_SUN: Rgb = (1.0, 0.74, 0.46)
_SUN_DIRECTION: Point = (0.30, 0.55, 0.80)
_SUN_RADIANCE: Final = 42.0
_SUN_SHARPNESS: Final = 160.0


@dataclass(frozen=True, slots=True)
class Ball:
    """One sphere of the field: where it is, how large, and what it is made of (a Mitsuba BSDF)."""

    centre: Point
    radius: float
    material: SceneDict


def spheres(seed: int) -> Iterator[Ball]:
    """Yields the ground, 481 small spheres and the three big ones, always in the same order."""
    draw = random.Random(seed).random
    yield Ball((0.0, -1000.0, 0.0), 1000.0, _matt((0.50, 0.47, 0.43)))
    for column in GRID:
        for row in GRID:
            if (column, row) not in RESERVED_CELLS:
                x, z = _place(draw, column, row)
                yield Ball((x, _resting_height(x, z), z), SMALL_RADIUS, _random_material(draw))
    left, middle, right = BIG_CENTRES
    yield Ball((left, 1.0, 0.0), 1.0, _glossy((0.62, 0.07, 0.035)))
    yield Ball((middle, 1.0, 0.0), 1.0, _glass())
    yield Ball((right, 1.0, 0.0), 1.0, _metal((0.90, 0.80, 0.66), 0.0))


def scene_dict(seed: int) -> SceneDict:
    """The whole scene except camera and sky, as Mitsuba's ``load_dict`` takes it."""
    scene: SceneDict = {"type": "scene"}
    for number, ball in enumerate(spheres(seed)):
        scene[f"ball_{number:03}"] = {
            "type": "sphere",
            "center": list(ball.centre),
            "radius": ball.radius,
            "bsdf": ball.material,
        }
    return scene


def camera_dict(look_at: Any) -> SceneDict:
    """The camera without its film: a long lens with depth of field, focused on the metal sphere.

    Args:
        look_at: the camera's transform, made by the renderer from ``CAMERA_ORIGIN`` and ``CAMERA_TARGET``.
    """
    return {
        "type": "thinlens",
        "to_world": look_at,
        "fov": 21.5,
        "fov_axis": "y",
        "aperture_radius": 0.05,
        "focus_distance": 9.4,
    }


CAMERA_ORIGIN: Final = (13.0, 2.0, 3.0)
CAMERA_TARGET: Final = (0.0, 0.35, 0.0)


def sky_row(row: int) -> list[float]:
    """One row of the latitude-longitude sky, from the zenith (row 0) down: ``SKY_WIDTH`` linear RGB pixels."""
    theta = (row + 0.5) / SKY_HEIGHT * math.pi
    up, around = math.cos(theta), math.sin(theta)
    height = max(up, 0.0) ** 0.36
    # The ground hides what lies further below the horizon than its own curve: light there would only cost rays.
    shine = 1.0 if up > -0.1 else 0.02
    base = [shine * (low + (high - low) * height) for low, high in zip(_HORIZON, _ZENITH, strict=True)]
    values: list[float] = []
    for column in range(SKY_WIDTH):
        # Mitsuba looks an environment map up at u = atan2(x, -z) / 2 pi, v = acos(y) / pi.
        phi = (column + 0.5) / SKY_WIDTH * 2.0 * math.pi
        toward = (around * math.sin(phi), up, -around * math.cos(phi))
        glow = _sun_glow(toward)
        values.extend(sky + sun * glow for sky, sun in zip(base, _SUN, strict=True))
    return values


def _sun_glow(toward: Point) -> float:
    length = math.sqrt(sum(part * part for part in _SUN_DIRECTION))
    cosine = sum(a * b for a, b in zip(toward, _SUN_DIRECTION, strict=True)) / length
    # A disc without an edge, a dozen degrees wide: soft shadows, and little noise for a sun.
    return _SUN_RADIANCE * math.exp(_SUN_SHARPNESS * (cosine - 1.0)) + 0.35 * math.exp(6.0 * (cosine - 1.0))


def _place(draw: Any, column: int, row: int) -> tuple[float, float]:
    """A place inside the cell that touches neither its neighbours nor a big sphere."""
    while True:
        # 0.2 to 0.8 of the cell: a ball of radius 0.2 never leaves it.
        x, z = column + 0.2 + 0.6 * draw(), row + 0.2 + 0.6 * draw()
        clear = min(math.hypot(x - centre, z) for centre in BIG_CENTRES)
        # Two balls of radius 1 and 0.2 on one plane touch at sqrt(1.2^2 - 0.8^2) = 0.894.
        if clear > 0.95:
            return x, z


def _resting_height(x: float, z: float) -> float:
    """The ground is a sphere of radius 1000: far from the middle it lies lower."""
    return math.sqrt((1000.0 + SMALL_RADIUS) ** 2 - x * x - z * z) - 1000.0


def _random_material(draw: Any) -> SceneDict:
    choice = draw()
    first, second, third = draw(), draw(), draw()
    if choice < 0.62:
        return _matt(_vivid(first, second, third))
    if choice < 0.78:
        return _glossy(_vivid(first, second, third))
    if choice < 0.93:
        return _metal((0.5 + 0.45 * first, 0.5 + 0.45 * second, 0.5 + 0.45 * third), 0.25 * draw() ** 2)
    return _glass()


def _vivid(hue: float, saturation: float, value: float) -> Rgb:
    """A colour as painters choose them: any hue, rarely grey, rarely dark."""
    level, strength = 0.30 + 0.65 * value, 0.60 + 0.38 * saturation
    wave = [0.5 + 0.5 * math.cos(2.0 * math.pi * (hue - shift)) for shift in (0.0, 1.0 / 3.0, 2.0 / 3.0)]
    red, green, blue = (level * (1.0 - strength + strength * part) for part in wave)
    return red, green, blue


def _colour(rgb: Rgb) -> SceneDict:
    return {"type": "rgb", "value": list(rgb)}


def _matt(rgb: Rgb) -> SceneDict:
    return {"type": "diffuse", "reflectance": _colour(rgb)}


def _glossy(rgb: Rgb) -> SceneDict:
    return {"type": "plastic", "diffuse_reflectance": _colour(rgb), "nonlinear": True}


def _metal(rgb: Rgb, roughness: float) -> SceneDict:
    if roughness < 0.02:
        return {"type": "conductor", "material": "none", "specular_reflectance": _colour(rgb)}
    return {
        "type": "roughconductor",
        "material": "none",
        "specular_reflectance": _colour(rgb),
        "alpha": roughness,
        "distribution": "ggx",
    }


def _glass() -> SceneDict:
    return {"type": "dielectric", "int_ior": 1.5, "ext_ior": 1.0}
