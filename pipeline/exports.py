"""Results in the formats of other programs: AnnData for scverse, GeoJSON for QuPath."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import zarr

from pipeline.errors import ConfigError, StoreError
from pipeline.measure.outlines import outline
from pipeline.remote.zarr_stores import readable
from pipeline.stores.replacing import replacing
from pipeline.stores.tables import TABLE, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata
    import pandas as pd

    from pipeline.results import Result

__all__ = ["to_anndata", "write_anndata", "write_geojson"]


def to_anndata(result: Result) -> anndata.AnnData:
    """Give the table of objects as AnnData.

    Parameters
    ----------
    result : Result
        With a table.

    Returns
    -------
    AnnData
        One observation per object, named by its label: measurements in ``X``, all else in ``obs``, the centres of the
        objects, X first, in ``obsm["spatial"]``: in physical units.

    Raises
    ------
    ConfigError
        If anndata is not installed.
    StoreError
        If the result has no table.
    """
    table = result.table
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise ConfigError("anndata is not installed; install it with: pip install 'seamfree[anndata]'") from error
    described: Any = zarr.open_group(readable(result.path / TABLE), mode="r").attrs.asdict()
    measured = table[list(described["measurement_columns"])]
    names = table.index.astype(str)
    centres = [name for name in table.columns if name.startswith("centroid_physical-")][::-1]
    return anndata.AnnData(
        X=measured.to_numpy(np.float64),
        obs=table.drop(columns=measured.columns).set_axis(names),
        var=pd.DataFrame(index=measured.columns),
        obsm={"spatial": table[centres].to_numpy(np.float64)},
        uns={"units": dict(described["units"])},
    )


def write_anndata(result: Result, path: str | Path) -> int:
    """Write `to_anndata` to a file.

    Parameters
    ----------
    result : Result
        With a table.
    path : str or Path
        The file, ``.h5ad``; replaced once the new one is complete.

    Returns
    -------
    int
        Number of objects.

    Raises
    ------
    ConfigError
        If anndata is not installed.
    StoreError
        If the result has no table, or the file cannot be written.
    """
    table = to_anndata(result)
    written = _as_h5ad(table)
    with replacing(Path(path)) as beside:
        beside.write_bytes(written)
    return int(table.n_obs)


def _as_h5ad(table: anndata.AnnData) -> bytes:
    """Give AnnData as a file, made in memory: HDF5 that meets a full disk ends the process."""
    import h5py
    from anndata.io import write_elem

    table.strings_to_categoricals()
    # The name is that of no file.
    with h5py.File("table.h5ad", "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", table)
        # There is none, which readers of earlier years take for damage where it is said.
        file.pop("raw", None)
        file.flush()
        return bytes(file.id.get_file_image())


def write_geojson(result: Result, path: str | Path) -> int:
    """Write the outlines of two-dimensional objects, as detections that QuPath opens.

    Outlines run along the edges of the labels' pixels, in pixels of the image, so that objects that touch share a line
    and none overlap. The measurements are those of the table. Objects are read and written one after the other; what is
    held is a row group of the table and the pixels around some objects.

    Parameters
    ----------
    result : Result
        With a table.
    path : str or Path
        The file; replaced once the new one is complete.

    Returns
    -------
    int
        Number of objects.

    Raises
    ------
    StoreError
        If the result has no table, its objects are three-dimensional, or the file cannot be written.
    """
    if result.provenance["plan"]["spatial_ndim"] != 2:
        raise StoreError(f"{result.path}: its objects are three-dimensional; GeoJSON holds outlines in planes")
    # What the result lacks is told before a file is opened.
    with open_table(result.path):
        pass
    count = 0
    with replacing(Path(path)) as beside, beside.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for feature in _features(result):
            file.write((",\n" if count else "\n") + json.dumps(feature, allow_nan=False))
            count += 1
        file.write("\n]}\n")
    return count


def _features(result: Result) -> Iterator[dict[str, Any]]:
    """Give all objects as GeoJSON features, by label."""
    described: Any = zarr.open_group(readable(result.path / TABLE), mode="r").attrs.asdict()
    wanted = [name for name in described["measurement_columns"] if not name.startswith("bbox")]
    digest = result.provenance["digest"]
    with open_table(result.path) as file:
        for group in range(file.num_row_groups):
            rows: pd.DataFrame = file.read_row_group(group).to_pandas()
            rings = _outlines(result, rows)
            for row in rows.to_dict("records"):
                plane = {"c": -1, "z": int(row.get("z", 0)), "t": int(row.get("t", 0))}
                pieces = rings.pop(row["label"])
                yield {
                    "type": "Feature",
                    "id": str(uuid5(NAMESPACE_URL, f"{digest}/{row['label']}")),
                    "geometry": {
                        "type": "Polygon" if len(pieces) == 1 else "MultiPolygon",
                        "coordinates": pieces[0] if len(pieces) == 1 else pieces,
                        "plane": plane,
                    },
                    "properties": {
                        "objectType": "detection",
                        "name": str(row["label"]),
                        "classification": {"name": row["class"]},
                        "measurements": {name: row[name] for name in wanted if isfinite(row[name])},
                    },
                }


def _frame(result: Result) -> list[tuple[int, float]]:
    """Give how large the labels' pixels are in pixels of the image, and where the first one begins, along Y and X."""
    plan = result.provenance["plan"]
    scales, centres = plan["footprint"]["scale"][2:], plan["centre"][2:]
    starts = [centre - (scale - 1) / 2 for scale, centre in zip(scales, centres, strict=True)]
    # Whole numbers stay whole.
    return [(scale, int(start) if start == int(start) else start) for scale, start in zip(scales, starts, strict=True)]


def _outlines(result: Result, rows: pd.DataFrame) -> dict[int, list[Any]]:
    """Trace the objects of some rows, those that begin in one core together, so that their pixels are read once."""
    edges = result.provenance["plan"]["core"][2:]
    (by_y, from_y), (by_x, from_x) = _frame(result)
    corners = rows[["bbox-0", "bbox-1"]].to_numpy() // edges
    keys = {"t": rows.get("t", 0), "z": rows.get("z", 0), "y": corners[:, 0], "x": corners[:, 1]}
    small = ((rows["bbox-2"] - rows["bbox-0"]) <= edges[0]) & ((rows["bbox-3"] - rows["bbox-1"]) <= edges[1])
    # What is larger than a core is read by itself.
    keys["alone"] = np.where(small, 0, rows["label"])
    found: dict[int, list[Any]] = {}
    for _, members in rows.assign(**{f"_{name}": values for name, values in keys.items()}).groupby(
        [f"_{name}" for name in keys], sort=False
    ):
        start = members[["bbox-0", "bbox-1"]].min().to_numpy()
        stop = members[["bbox-2", "bbox-3"]].max().to_numpy()
        frame = [int(members[axis].iloc[0]) for axis in "tz" if axis in members]
        box: tuple[int | slice, ...] = (*frame, slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1])))
        labels = np.asarray(result.instances[0][box])
        for label, *place in members[["label", "bbox-0", "bbox-1", "bbox-2", "bbox-3"]].to_numpy().tolist():
            y, x = place[0] - int(start[0]), place[1] - int(start[1])
            mask = labels[y : y + place[2] - place[0], x : x + place[3] - place[1]] == label
            found[label] = [
                [
                    [[(at_x + place[1]) * by_x + from_x, (at_y + place[0]) * by_y + from_y] for at_x, at_y in ring]
                    for ring in polygon
                ]
                for polygon in outline(mask)
            ]
    return found
