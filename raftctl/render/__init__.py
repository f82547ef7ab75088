"""Unrolls a frame into a job of tiles, follows it, and puts the tiles together into one image."""
