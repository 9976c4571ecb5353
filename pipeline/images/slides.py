"""What scanners and screening microscopes say of themselves in TIFF: pixel sizes, and names of channels."""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING
from xml.sax.saxutils import unescape

if TYPE_CHECKING:
    import tifffile

__all__ = ["read_slide"]

_COARSEST = 100.0
"""Micrometres. What claims larger pixels tells of a print, not of a microscope."""

_APERIO = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")
_METASERIES = re.compile(r'<prop id="spatial-calibration-(x|y|state|units)"[^>]*\bvalue="([^"]*)"')
_NAME = re.compile(r"<Name>([^<]*)</Name>")


def read_slide(file: tifffile.TiffFile, number: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Find the size of pixels along Y and X, in micrometres, and the names of channels.

    Parameters
    ----------
    file : TiffFile
        Neither OME-TIFF nor ImageJ.
    number : int
        Which series.

    Returns
    -------
    size : dict of str to float
        By axis; empty where nothing is said, or in inches, which programs write that know no size.
    names : tuple of str
        Of a slide of PerkinElmer's or Akoya's; empty where there are none.
    """
    # Positions of one series may be told apart beside tifffile.
    series = file.series[min(number, len(file.series) - 1)].levels[0]
    page = series.keyframe
    size: dict[str, float] = {}
    if file.is_svs and (found := _APERIO.search(page.description)):
        size = dict.fromkeys("YX", _positive(found[1]))
    elif file.is_metaseries:
        said = dict(_METASERIES.findall(page.description))
        if (said.get("state"), said.get("units")) == ("on", "um"):
            size = {axis: _positive(said.get(axis.lower(), "")) for axis in "YX"}
    elif "ResolutionUnit" in page.tags and page.tags["ResolutionUnit"].value == 3:
        for axis in "YX":
            over, under = page.tags[f"{axis}Resolution"].value if f"{axis}Resolution" in page.tags else (0, 0)
            size[axis] = 1e4 * under / over if over else 0.0
    size = size if len(size) == 2 and all(0 < each <= _COARSEST for each in size.values()) else {}
    if not file.is_qpi or not series.axes.startswith("C"):
        return size, ()
    found_names = [_NAME.search(getattr(each, "description", "")) for each in series.pages if each is not None]
    return size, tuple(unescape(name[1]).strip() or f"channel {at}" if name else f"channel {at}"
                       for at, name in enumerate(found_names))  # fmt: skip


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if isfinite(value) else 0.0
