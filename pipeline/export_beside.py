"""`seamfree run --export`: what a run has made, in formats of other programs, in a folder beside each result."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, SeamfreeError, StoreError
from pipeline.images.discover import EXPORTS
from pipeline.printing import in_one_line, unexpected
from pipeline.remote.paths import is_url
from pipeline.results import open_result
from pipeline.stores.hold import hold
from pipeline.stores.publish import not_ours
from pipeline.stores.replacing import clear_unfinished, is_unfinished, refused, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage
    from pipeline.results import Result
    from pipeline.run import ImageReport

__all__ = ["check_formats", "export_results", "exports_of"]

log = logging.getLogger(__name__)

_SUFFIXES = {"ome-tiff": ".ome.tif", "geojson": ".geojson", "anndata": ".h5ad"}
"""Of files, by the names of formats."""


def check_formats(formats: Sequence[str], output: str, config: RunConfig) -> None:
    """Refuse, before work starts, what could not be written in the end.

    Raises
    ------
    ConfigError
        If there is no such format, results go to an object store, there will be no table, objects have volumes, which
        GeoJSON does not hold, or a package is not installed.
    ModelError
        If there is no such model, or no valid card.
    """
    if unknown := [name for name in formats if name not in _SUFFIXES]:
        raise ConfigError(f"--export {unknown[0]}: no such format; there are {', '.join(_SUFFIXES)}")
    if is_url(output):
        raise ConfigError(f"{output}: --export writes to a disk; use seamfree export on the results, or give a folder")
    of_objects = [name for name in formats if name != "ome-tiff"]
    if of_objects and (not config.output.table or config.instances.method == "none"):
        raise ConfigError(f"--export {of_objects[0]}: needs the table of objects, which the settings leave out")
    if "geojson" in formats and _is_of_volumes(config):
        raise ConfigError(
            f"--export geojson: objects of {config.model} are three-dimensional, and GeoJSON holds outlines in planes; "
            f"leave it out, or give one of {', '.join(name for name in _SUFFIXES if name != 'geojson')}"
        )
    if "anndata" in formats and find_spec("anndata") is None:
        raise ConfigError("--export anndata: it is not installed; install it with: pip install 'seamfree[anndata]'")


def _is_of_volumes(config: RunConfig) -> bool:
    """Say whether a model takes volumes, where its card says so; of others it is told when there is a result."""
    from pipeline.models.card import read_card
    from pipeline.models.library import find_model

    if config.instances.method == "overlap":  # without a model
        return False
    found = find_model(config.model)
    return found.is_dir() and read_card(found).dims == 3


def exports_of(image: InputImage, output: Path) -> Path:
    """Give the folder of an image's exports: ``NAME.exports``; those of a plate's fields lie in one of the plate."""
    if image.plate:
        return output / f"{image.plate}.exports{image.name.removeprefix(image.plate)}"
    return output / f"{image.name}.exports"


def export_results(
    images: Sequence[InputImage],
    reports: Sequence[ImageReport],
    output: Path,
    formats: Sequence[str],
    tell: Callable[[str], None],
) -> list[ImageReport]:
    """Write the results of images in formats of other programs.

    What is there of the same result is left alone, so that a run that was interrupted goes on; what is there of an
    earlier one, in formats that are not asked for now, goes. Results are held against other runs meanwhile.

    Parameters
    ----------
    images : sequence of InputImage
        Those of the run.
    reports : sequence of ImageReport
        What became of each, and of plates.
    output : Path
        The folder of the results.
    formats : sequence of str
        Which formats.
    tell : callable
        Is told a line of each file that was written or removed.

    Returns
    -------
    list of ImageReport
        The same, but that an image whose result could not be exported has failed, with the reason.
    """
    by_name = {image.name: image for image in images}
    found = []
    for report in reports:
        image, done = by_name.get(report.name), report
        if image is not None and report.result is not None and report.status != "failed":
            try:
                with hold(_held_for(image, Path(report.result), output)):
                    folder = _Exports(exports_of(image, output), report.name.rpartition("/")[2])
                    reasons = folder.write(open_result(report.result), formats, tell)
            except Exception as error:
                log.debug("%s could not be exported", report.result, exc_info=True)
                reasons = [_why(error)]
            if reasons:
                # A full disk says the same of each.
                why = "; ".join(dict.fromkeys(reasons))
                done = replace(report, status="failed", reason=f"the result is finished, and not exported: {why}")
        found.append(done)
    return found


def _held_for(image: InputImage, result: Path, output: Path) -> Path:
    """Give what runs hold that make a result: a plate whole, where it is not one that labels were added to."""
    return output / f"{image.plate}.ome.zarr" if image.plate and result.is_relative_to(output) else result


def _why(error: Exception) -> str:
    return in_one_line(str(error)) if isinstance(error, SeamfreeError) else unexpected(error)


class _Exports:
    """The folder of one result's exports: a new one, or one that is there.

    Notes in it say of each file of seamfree's which result it is of, by the digest of its plan: the same plan gives the
    same bytes. A file is noted before it is written, without a digest; one that is not noted is somebody else's.

    Parameters
    ----------
    folder : Path
        The folder.
    name : str
        Of the files, without suffix.

    Raises
    ------
    StoreError
        If it is not ours, its notes are damaged, or the disk refuses.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._notes = folder / EXPORTS
        self._paths = {wanted: folder / f"{name}{suffix}" for wanted, suffix in _SUFFIXES.items()}
        try:
            if os.path.lexists(folder) and not folder.is_dir():  # a file, or a link that leads nowhere
                raise not_ours(folder)
            folder.mkdir(parents=True, exist_ok=True)
            inside = [path for path in folder.iterdir() if not is_unfinished(path, self._notes)]
            self._made_of = self._read([path for path in inside if path != self._notes])
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise refused(folder, error) from error

    def _read(self, others: list[Path]) -> dict[str, str]:
        """Read the notes; a folder that has been made and not marked yet, or lost its notes, is empty."""
        if not os.path.lexists(self._notes):
            if others:
                raise not_ours(self._notes.parent)
            self._note({})
            return {}
        try:
            held = json.loads(self._notes.read_bytes())
            if isinstance(held, dict) and all(isinstance(digest, str) for digest in held.values()):
                return held
        except (ValueError, RecursionError) as error:
            log.debug("%s is damaged: %s", self._notes, error)
        if others:
            raise StoreError(
                f"{self._notes}: damaged, so that nobody can say which files beside it are seamfree's; move away what "
                "you need of this folder, and remove it"
            )
        return {}

    def _note(self, made_of: dict[str, str]) -> None:
        with replacing(self._notes) as beside:
            beside.write_text(json.dumps(made_of, indent=2))
        self._made_of = made_of

    def write(self, result: Result, formats: Sequence[str], tell: Callable[[str], None]) -> list[str]:
        """Write a result; give the reasons why some formats could not be written, if any."""
        digest = str(result.provenance["digest"])
        self._clear(digest, formats, tell)
        writers: dict[str, Callable[[Path], object]] = {
            "ome-tiff": result.write_ome_tiff, "geojson": result.write_geojson, "anndata": result.write_anndata
        }  # fmt: skip
        reasons = []
        for wanted in dict.fromkeys(formats):
            path = self._paths[wanted]
            if self._made_of.get(path.name) == digest and path.is_file():
                continue
            try:
                self._write_one(path, digest, writers[wanted])
            except Exception as error:
                log.debug("%s could not be exported", path, exc_info=True)
                reasons.append(_why(error))
            else:
                tell(f"exported: {path}")
        return reasons

    def _write_one(self, path: Path, digest: str, write: Callable[[Path], object]) -> None:
        """Write one file."""
        if path.name not in self._made_of and os.path.lexists(path):
            raise not_ours(path)
        before = self._made_of
        self._note(before | {path.name: ""})
        try:
            write(path)
        except Exception:
            if not os.path.lexists(path):
                self._note({name: held for name, held in before.items() if name != path.name})
            raise
        self._note(before | {path.name: digest})

    def _clear(self, digest: str, formats: Sequence[str], tell: Callable[[str], None]) -> None:
        """Remove what the killed have left, and what is of another result and would not be written now."""
        made_of = dict(self._made_of)
        for wanted, path in self._paths.items():
            if path.name not in made_of:
                continue
            clear_unfinished(path)
            left = path.with_name(f"{path.name}.partial")
            if left.is_file() and not left.is_symlink():
                left.unlink()
            if made_of[path.name] != digest and wanted not in formats:
                if os.path.lexists(path):
                    path.unlink()
                    tell(f"removed: {path}, of an earlier result")
                del made_of[path.name]
        if made_of != self._made_of:
            self._note(made_of)
