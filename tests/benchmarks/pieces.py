"""How much the scores of a window differ from those of its pieces, as computed where memory is short."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.geometry import ways_to_cut, window_in
from pipeline.models.architecture import Precision
from pipeline.models.facts import learn_facts
from pipeline.models.library import load_model
from pipeline.models.predictor import Predictor, limit_threads

EDGES = (256, 384, 512, 768, 1024)


def difference(predictor: Predictor, model: str, edge: int) -> list[float]:
    """Give the largest difference of two scores for each number of cuts of a core, and noise for an image."""
    footprint = learn_facts(model).context.footprint
    assert footprint is not None
    core = (edge, edge)
    window = np.random.default_rng(edge).random((1, *footprint.window_shape(core)), dtype=np.float32)
    at = tuple(slice(start, start + length) for start, length in zip(footprint.inset, core, strict=True))
    whole = predictor.predict(window, scores=True).scores
    assert whole is not None
    whole = whole[(slice(None), *at)]
    found = []
    for pieces in ways_to_cut(core, footprint):
        largest = 0.0
        for piece in pieces:
            part = np.ascontiguousarray(window[(slice(None), *window_in(piece, footprint).slices)])
            scores = predictor.predict(part, scores=True).scores
            assert scores is not None
            own = tuple(slice(start, start + length)
                        for start, length in zip(footprint.inset, piece.shape, strict=True))  # fmt: skip
            apart = np.abs(scores[(slice(None), *own)] - whole[(slice(None), *piece.slices)])
            largest = max(largest, float(apart.max()))
        found.append(largest)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei-fluorescence")
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    given = parser.parse_args()
    limit_threads(1)
    for precision in given.precision:
        predictor = Predictor(load_model(given.model), "cpu", cast("Precision", precision))
        for edge in EDGES:
            told = ", ".join(f"{each:.1e}" for each in difference(predictor, given.model, edge))
            print(f"{precision}, core of {edge}: {told}", flush=True)


if __name__ == "__main__":
    main()
