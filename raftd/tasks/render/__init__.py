"""The ray-traced frame behind render-tile: its scene and the rendering of one tile of it."""
