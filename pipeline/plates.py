"""Plates: their fields are images of their own, and what becomes of them is one plate again.

While fields are missing, a plate is called ``PLATE.ome.zarr.partial`` and has no metadata that would make it a plate;
then come its rows, its wells, and itself, and last of all the name.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SeamfreeError, StoreError
from pipeline.identity import differences
from pipeline.images.discover import plate_of
from pipeline.images.plates import PlateField, PlateLayout, read_plate
from pipeline.images.sequences import as_sequence
from pipeline.report.writing import drop_reports, reports_of
from pipeline.run import SETTINGS, ImageReport
from pipeline.stores.hold import EXPIRY, hold
from pipeline.stores.plates import check_plate, write_plate
from pipeline.stores.publish import (
    count_objects,
    file_checksums,
    publish,
    read_provenance,
    recover,
    refuse_foreign,
    write_provenance,
)
from pipeline.wells import summarise_wells, wells_path, write_wells

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage
    from pipeline.remote.paths import AnyPath

__all__ = ["finish_plates", "hold_plates"]


@contextmanager
def hold_plates(
    images: Sequence[InputImage], output: Path, config: RunConfig, *, fresh: bool
) -> Iterator[list[InputImage]]:
    """Hold the plates that images are fields of against other runs, and say of each field where its result belongs.

    It belongs into a finished plate, or into an unfinished one. The fields of a plate that no run may work on now, or
    that could not become one in the end, are refused one by one, before work starts; other images are not concerned.

    Parameters
    ----------
    images : sequence of InputImage
        All images of a run.
    output : Path
        Folder under which results go.
    config : RunConfig
        All settings.
    fresh : bool
        Whether to start over: then a finished plate stays as it is until a new one takes its place.

    Yields
    ------
    list of InputImage
        In the same order.
    """
    sources = {image.plate: plate_of(image) for image in images if image.plate and not image.refused}
    with ExitStack() as held:
        places: dict[str, str] = {}
        refused: dict[str, str] = {}
        for plate, source in sources.items():
            try:
                layout = read_plate(source)
                if config.output.in_place and as_sequence(source) is not None:
                    raise StoreError(
                        f"{source}: --in-place is for OME-Zarr, and this is a plate of files; leave it out"
                    )
                if not config.output.in_place:
                    check_plate(layout.described, config.output.ome_zarr)
                    places[plate] = _take(plate, output, held, fresh=fresh)
            except SeamfreeError as error:
                refused[plate] = str(error)
        yield [
            replace(
                image,
                place=image.place.replace(f"{image.plate}.ome.zarr/", f"{places.get(image.plate, '')}/", 1)
                if image.plate in places
                else image.place,
                refused=refused.get(image.plate, image.refused),
            )
            for image in images
        ]


def _take(plate: str, output: Path, held: ExitStack, *, fresh: bool) -> str:
    """Hold a plate's result, finish what an interrupted run was about to, and give its folder as it is called now."""
    final, partial = _folders(output, plate)
    refuse_foreign(final)
    held.enter_context(hold(final))
    recover(partial, final)
    if final.exists() and not partial.exists():
        _give_reports_their_name(final, partial)
    chosen = final if final.exists() and not fresh else partial
    return chosen.relative_to(output).as_posix()


def finish_plates(
    images: Sequence[InputImage], reports: Sequence[ImageReport], output: Path, config: RunConfig
) -> list[ImageReport]:
    """Make plates of the fields' results, once all are there, and sum up their wells.

    Parameters
    ----------
    images : sequence of InputImage
        All images of a run, as `hold_plates` gave them, still held; the fields of a plate follow one another.
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
        source = plate_of(pairs[0][0])
        try:
            refused = [image.refused for image, _ in pairs if image.refused]
            if refused:
                raise StoreError(refused[0])
            found += _Making(plate, source, own, output, config).finish()
        except SeamfreeError as error:
            reason = " ".join(str(error).split())
            found += [*own, ImageReport(plate, str(source.absolute()), "failed", reason=reason)]
    return found


class _Making:
    """One plate whose fields have been attempted."""

    def __init__(
        self, plate: str, source: AnyPath, reports: list[ImageReport], output: Path, config: RunConfig
    ) -> None:
        self.plate, self.source, self.reports, self.output, self.config = plate, source, reports, output, config
        in_place = config.output.in_place and isinstance(source, Path)
        self.final, self.partial = (Path(str(source)),) * 2 if in_place else _folders(output, plate)
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
            with hold(self.final, patience=EXPIRY):
                write_provenance(self.final, self._facts(fields, missing))
            _clear(self.output / f"{self.plate}.in-place")
        elif any(Path(str(each.result)).is_relative_to(self.partial.absolute()) for each in self.done.values()):
            self._publish(fields, missing)
            reports = [replace(each, result=self._place(each)) for each in reports]
        else:
            self._extend(fields, missing)
        return [*reports, replace(report, objects=count_objects(self.final))]

    def _place(self, report: ImageReport) -> str | None:
        """Give a field's path in the finished plate."""
        if report.result is None:
            return None
        return str(self.final.absolute() / Path(report.result).relative_to(self.partial.absolute()))

    def _publish(self, fields: list[PlateField], missing: list[ImageReport]) -> None:
        """Give the plate its metadata and its name."""
        refuse_foreign(self.final)
        facts = self._facts(fields, missing)
        _tidy(self.partial)
        written = self._describe(fields)
        write_provenance(self.partial, facts | self._checksums(written))
        drop_reports(self.final)
        publish(self.partial, self.final, replace=True, written=written)
        _give_reports_their_name(self.final, self.partial)

    def _extend(self, fields: list[PlateField], missing: list[ImageReport]) -> None:
        """Have a finished plate list fields that it has gained, be it that they were left out or not taken before.

        Metadata of the plate that are not as they were written are written again.
        """
        facts, noted = self._facts(fields, missing), read_provenance(self.final)
        known = noted.get("metadata_checksums", {})
        damaged = not isinstance(known, dict) or file_checksums(self.final, known) != known
        if damaged or {name: noted.get(name) for name in _LISTED} != {name: facts[name] for name in _LISTED}:
            _tidy(self.final)
            written = self._describe(fields)
            write_provenance(self.final, facts | self._checksums(written))

    def _checksums(self, written: list[Path]) -> dict[str, Any]:
        """Give what the metadata of the plate, its rows and its wells are known again by."""
        files = sorted({path.relative_to(self._folder).as_posix() for path in written})
        return {"metadata_checksums": file_checksums(self._folder, files)}

    def _describe(self, fields: list[PlateField]) -> list[Path]:
        wells = {key: [(field.name, field.acquisition) for field in own] for key, own in _by_well(fields).items()}
        version = read_provenance(self._folder / fields[0].path)["plan"]["ome_zarr"]
        return write_plate(self._folder, self.layout.described, wells, version)

    @property
    def _folder(self) -> Path:
        """Where the fields' results are now."""
        return self.partial if self.partial.exists() else self.final

    def _facts(self, fields: list[PlateField], missing: list[ImageReport]) -> dict[str, Any]:
        held = {field.path: read_provenance(self._folder / field.path) for field in fields}
        _check_alike(self.plate, held)
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


_LISTED = ("fields", "missing")


def _tidy(plate: Path) -> None:
    """Remove what runs have left beside the fields of a plate that this one holds: of fields that it does without.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    try:
        for well in plate.glob("*/*"):
            for path in sorted(well.iterdir()) if well.is_dir() else []:
                if path.name.endswith(".partial") and path.is_dir():
                    shutil.rmtree(path)
                elif path.name.startswith(".") and path.name.endswith(".lock"):
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{plate}: cannot be tidied up ({error.strerror or error})") from error
    _clear(plate)


def _give_reports_their_name(final: Path, partial: Path) -> None:
    """Have the reports of the fields of a plate that has just been published lie where those of finished plates do."""
    if reports_of(partial).exists():
        drop_reports(final)
        try:
            reports_of(partial).rename(reports_of(final))
        except OSError as error:
            raise StoreError(f"{reports_of(final)}: cannot be made ({error.strerror or error})") from error


def _clear(folder: Path) -> None:
    """Remove the empty folders in which unfinished results of a plate were; fields themselves are never empty."""
    for well in [*folder.glob("*/*"), *folder.glob("*"), folder]:
        with suppress(OSError):  # not empty, or no folder
            well.rmdir()


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
