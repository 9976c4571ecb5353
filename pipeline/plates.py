"""Plates: their fields are images of their own, and what becomes of them is one plate again.

While fields are missing, a plate is called ``PLATE.ome.zarr.partial`` and has no metadata that would make it a plate;
then come its rows, its wells, and itself, and last of all the name.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SeamfreeError, StoreError
from pipeline.identity import differences
from pipeline.images.plates import PlateField, PlateLayout, read_plate
from pipeline.run import SETTINGS, ImageReport
from pipeline.stores.hold import hold
from pipeline.stores.plates import write_plate
from pipeline.stores.publish import publish, read_provenance, recover, refuse_foreign, write_provenance
from pipeline.wells import summarise_wells, wells_path, write_wells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage

__all__ = ["finish_plates", "settle_places"]


def settle_places(
    images: Sequence[InputImage], output: Path, *, fresh: bool, in_place: bool = False
) -> list[InputImage]:
    """Say of each field of a plate whether its result belongs into a finished plate or into an unfinished one.

    Parameters
    ----------
    images : sequence of InputImage
        All images of a run.
    output : Path
        Folder under which results go.
    fresh : bool
        Whether to start over: then a finished plate stays as it is until a new one takes its place.
    in_place : bool
        Whether results become part of the plates that they are made of: then there are no other plates.

    Raises
    ------
    StoreError
        If another run is just finishing a plate, or the disk refuses.
    """
    if in_place:
        return list(images)
    settled: dict[str, bool] = {}
    for plate in {image.plate: None for image in images if image.plate}:
        final, partial = _folders(output, plate)
        if partial.exists():
            with hold(final):
                recover(partial, final)
        settled[plate] = final.exists() and not fresh
    return [
        image
        if not image.plate or settled[image.plate]
        else replace(image, place=f"{image.plate}.ome.zarr.partial/{image.name.removeprefix(f'{image.plate}/')}")
        for image in images
    ]


def finish_plates(
    images: Sequence[InputImage], reports: Sequence[ImageReport], output: Path, config: RunConfig
) -> list[ImageReport]:
    """Make plates of the fields' results, once all are there, and sum up their wells.

    Parameters
    ----------
    images : sequence of InputImage
        All images of a run, as `settle_places` gave them; the fields of a plate follow one another.
    reports : sequence of ImageReport
        What became of each.
    output : Path
        Folder under which results go.
    config : RunConfig
        All settings.

    Returns
    -------
    list of ImageReport
        Those of the images, and behind the fields of a plate what became of it.
    """
    found: list[ImageReport] = []
    for plate, members in groupby(zip(images, reports, strict=True), lambda pair: pair[0].plate):
        pairs = list(members)
        own = [report for _, report in pairs]
        if not plate:
            found += own
            continue
        first = pairs[0][0]
        source = Path(first.path.removesuffix(first.name.removeprefix(plate)))
        try:
            found += _Making(plate, source, own, output, config).finish()
        except SeamfreeError as error:
            reason = " ".join(str(error).split())
            found += [*own, ImageReport(plate, str(source.absolute()), "failed", reason=reason)]
    return found


class _Making:
    """One plate whose fields have been attempted."""

    def __init__(self, plate: str, source: Path, reports: list[ImageReport], output: Path, config: RunConfig) -> None:
        self.plate, self.source, self.reports, self.output, self.config = plate, source, reports, output, config
        self.final, self.partial = (source, source) if config.output.in_place else _folders(output, plate)
        self.layout: PlateLayout = read_plate(source)
        self.done = {report.name.removeprefix(f"{plate}/"): report for report in reports if report.result is not None}

    def finish(self) -> list[ImageReport]:
        fields = [field for field in self.layout.fields if field.path in self.done]
        wells = _by_well(fields)
        summary = summarise_wells(
            {key: [Path(str(self.done[field.path].result)) for field in own] for key, own in wells.items()}
        )
        write_wells(wells_path(self.output, self.plate), summary)
        reports, whole = self.reports, "skipped" if all(each.status == "skipped" for each in self.reports) else "done"
        missing = [report for report in self.reports if report.result is None]
        report = ImageReport(self.plate, str(self.source.absolute()), whole, str(self.final.absolute()))
        if missing and (not fields or self.config.output.missing_fields == "refuse"):
            kept = self.final if self.final.exists() else self.partial
            hint = "; output: {missing_fields: leave_out} in a configuration makes the plate of the others" * bool(
                fields
            )
            reason = (
                f"{len(missing)} of {len(self.reports)} fields or wells failed, first {missing[0].name}; what is done "
                f"is kept in {kept.name}, and the same command goes on with it{hint}"
            )
            return [*reports, replace(report, status="failed", result=None, reason=reason)]
        if self.config.output.in_place:
            self._add(fields, missing)
            _clear(self.output, self.plate)
        elif any(Path(str(each.result)).is_relative_to(self.partial.absolute()) for each in self.done.values()):
            with hold(self.final):
                self._publish(fields, missing)
            reports = [replace(each, result=self._place(each)) for each in reports]
        return [*reports, replace(report, objects=self._count(fields))]

    def _count(self, fields: list[PlateField]) -> int | None:
        """Give the number of objects in all fields."""
        counts = [read_provenance(self.final / field.path).get("objects") for field in fields]
        return None if None in counts else sum(int(count) for count in counts if count is not None)

    def _place(self, report: ImageReport) -> str | None:
        """Give a field's path in the finished plate."""
        if report.result is None:
            return None
        return str(self.final.absolute() / Path(report.result).relative_to(self.partial.absolute()))

    def _publish(self, fields: list[PlateField], missing: list[ImageReport]) -> None:
        """Give the plate its metadata and its name."""
        refuse_foreign(self.final)
        held = self._provenance_of(fields)
        wells = {key: [(field.name, field.acquisition) for field in own] for key, own in _by_well(fields).items()}
        ome_zarr = next(iter(held.values()))["plan"]["ome_zarr"]
        written = write_plate(self.partial, self.layout.described, wells, ome_zarr)
        write_provenance(self.partial, self._facts(fields, missing, held))
        publish(self.partial, self.final, replace=True, written=written)

    def _add(self, fields: list[PlateField], missing: list[ImageReport]) -> None:
        """Note in the plate itself that its fields have labels."""
        held = self._provenance_of(fields)
        write_provenance(self.source, self._facts(fields, missing, held))

    def _provenance_of(self, fields: list[PlateField]) -> dict[str, dict[str, Any]]:
        held = {field.path: read_provenance(self.partial / field.path) for field in fields}
        _check_alike(self.plate, held)
        return held

    def _facts(
        self, fields: list[PlateField], missing: list[ImageReport], held: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        return {
            "seamfree": version("seamfree"),
            "input": str(self.source.absolute()),
            "in_place": self.config.output.in_place,
            "fields": [
                {
                    "path": field.path,
                    "row": field.row,
                    "column": field.column,
                    "name": field.name,
                    "acquisition": field.acquisition,
                    "objects": held[field.path].get("objects"),
                }
                for field in fields
            ],
            "missing": [{"name": report.name, "reason": report.reason} for report in missing],
        }


def _clear(output: Path, plate: str) -> None:
    """Remove the empty folders in which unfinished results of a plate were."""
    for folder, _, _ in os.walk(output / f"{plate}.ome.zarr", topdown=False):
        with suppress(OSError):  # not empty, and so not ours to remove
            Path(folder).rmdir()


def _folders(output: Path, plate: str) -> tuple[Path, Path]:
    final = output / f"{plate}.ome.zarr"
    return final, final.with_name(f"{final.name}.partial")


def _by_well(fields: Sequence[PlateField]) -> dict[tuple[str, str], list[PlateField]]:
    found: dict[tuple[str, str], list[PlateField]] = {}
    for field in fields:
        found.setdefault((field.row, field.column), []).append(field)
    return found


def _check_alike(plate: str, held: dict[str, dict[str, Any]]) -> None:
    """Refuse a plate whose fields were made in different ways, as an interrupted run leaves them before another one."""
    paths = list(held)
    first = held[paths[0]]["plan"]
    for path in paths[1:]:
        plan = held[path]["plan"]
        measured = plan.get("precision_tolerance") is not None and first.get("precision_tolerance") is not None
        wanted = {name: plan.get(name) for name in SETTINGS if not (measured and name == "precision")}
        if changed := differences(first, wanted):
            raise StoreError(
                f"{plate}: its fields {paths[0]} and {path} were made with different settings: {', '.join(changed)}; "
                "--fresh makes all of them again"
            )
