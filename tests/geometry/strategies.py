"""Random, but legal, geometry."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.geometry import Footprint, TileGrid


@st.composite
def footprints(draw: st.DrawFn, ndim: int) -> Footprint:
    """Valid, same-padded and mixed networks, of outputs as fine as the input and of coarser ones."""
    margin, halo, stride, phase, smallest, scales = [], [], [], [], [], []
    for _ in range(ndim):
        step = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
        crop = draw(st.integers(0, 20))
        scale = draw(st.sampled_from([by for by in (1, 2, 3, 4, step) if step % by == 0]))
        rest = (2 * crop + scale * draw(st.integers(0, step // scale - 1))) % step
        margin.append(crop)
        halo.append(draw(st.integers(0, 20)))
        stride.append(step)
        phase.append(rest)
        least = 2 * crop + 1
        smallest.append(least + (rest - least) % step)
        scales.append(scale)
    return Footprint(tuple(margin), tuple(halo), tuple(stride), tuple(phase), tuple(smallest), tuple(scales))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    """Grids over images of one to three axes: smaller than a tile, of one pixel, of prime sizes."""
    ndim = draw(st.integers(1, 3))
    longest = {1: 200, 2: 60, 3: 24}[ndim]
    footprint = draw(footprints(ndim))
    shape = tuple(
        draw(st.one_of(st.just(1), st.sampled_from([2, 3, 5, 7, 11, 13, 17, 19, 23]), st.integers(1, longest)))
        for _ in range(ndim)
    )
    core = tuple(step * draw(st.integers(1, 4)) for step in footprint.step)
    return TileGrid(shape, core, footprint)
