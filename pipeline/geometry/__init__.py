"""Integers only: boxes, what a network needs around them, and how an image is cut into tiles."""

from pipeline.geometry.box import Box
from pipeline.geometry.footprint import Footprint, Margin, round_up
from pipeline.geometry.mirror import mirror_index, mirror_indices
from pipeline.geometry.pieces import SHORTEST_PIECE, ways_to_cut, window_in
from pipeline.geometry.tiling import Tile, TileGrid, legal_core, window_around

__all__ = [
    "SHORTEST_PIECE",
    "Box",
    "Footprint",
    "Margin",
    "Tile",
    "TileGrid",
    "legal_core",
    "mirror_index",
    "mirror_indices",
    "round_up",
    "ways_to_cut",
    "window_around",
    "window_in",
]
