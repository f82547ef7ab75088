"""``raftctl render``: a picture, one task a tile.

What may live here: the options and what they come to. The work is ``raftctl.commands._rendering``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raftctl import output
from raftctl.commands._running import run, say_goes_on
from raftctl.context import Invocation, invocation
from raftctl.errors import CliError, UsageError

app = typer.Typer(add_completion=False)

DEFAULT_FILE = Path("render.png")


@app.command()
def render(
    ctx: typer.Context,
    scene: Annotated[
        Path | None,
        typer.Argument(metavar="SCENE.xml", help="A Mitsuba scene; without one, the field of spheres."),
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", min=1, help="Pixels. [400]", show_default=False)
    ] = None,
    height: Annotated[
        int | None, typer.Option("--height", min=1, help="Pixels. [225]", show_default=False)
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Camera rays per pixel.")] = None,
    tiles: Annotated[
        str, typer.Option("--tiles", metavar="COLUMNSxROWS", help="How the frame is cut.")
    ] = "8x8",
    seed: Annotated[
        int | None, typer.Option("--seed", "--scene-seed", min=0, help="Of the scene and of the noise.")
    ] = None,
    request_id: Annotated[
        str,
        typer.Option("--request-id", metavar="ID", help="Take up a rendering that was left under this id."),
    ] = "",
    priority: Annotated[int, typer.Option("--priority", help="Higher runs first.")] = 0,
    assemble: Annotated[
        Path | None,
        typer.Option(
            "--assemble", metavar="FILE", help="Make the picture of a file of tiles, without a cluster."
        ),
    ] = None,
) -> None:
    """Render a picture, one task a tile, and write it as PNG or EXR (-o FILE; -o json for a summary).

    It survives what the cluster survives. Interrupted, it goes on in the cluster: the same words with
    --request-id take it up again.
    """
    from raftctl.commands._rendering import Rendering, render_frame
    from raftctl.render.picture import check_output
    from raftctl.render.unroll import FrameOptions, parse_tiles

    asked = invocation(ctx)
    file = asked.output_file or DEFAULT_FILE
    try:
        check_output(file)
        frame = FrameOptions(width, height, samples, parse_tiles(tiles), seed)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if assemble is not None:
        _assemble(asked, assemble, file)
        return
    rendering = Rendering(frame, file, request_id, priority)
    try:
        summary = run(render_frame(asked, rendering, _bundle(scene)))
    except KeyboardInterrupt:
        if rendering.job_id:
            say_goes_on(asked, (rendering.job_id,))
            output.say(asked, f"to take it up again: the same with --request-id {rendering.request_id}")
        raise
    output.emit(asked, summary, [str(file)], lambda: str(file) if asked.quiet else rendering.ending(summary))


def _bundle(scene: Path | None) -> bytes | None:
    from raftctl.render.bundle import BundleError, make_bundle

    if scene is None:
        return None
    try:
        return make_bundle(scene)
    except BundleError as error:
        raise UsageError(str(error)) from None


def _assemble(asked: Invocation, tiles: Path, file: Path) -> None:
    from raftctl.render.picture import assemble_file
    from raftctl.render.tiles import TileError

    try:
        assemble_file(tiles, file)
    except TileError as error:
        raise CliError(f"{tiles}: {error}") from None
    output.emit(asked, {"output": str(file)}, [str(file)], lambda: str(file))
