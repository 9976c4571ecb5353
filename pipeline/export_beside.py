"""`seamfree run --export`: what a run has made, in formats of other programs, in a folder beside each result."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, SeamfreeError, StoreError
from pipeline.images.discover import EXPORTS
from pipeline.printing import in_one_line, unexpected
from pipeline.remote.paths import is_url
from pipeline.results import open_result
from pipeline.stores.publish import not_ours
from pipeline.stores.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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
        If there is no such format, results go to an object store, there will be no table, or a package is not
        installed.
    """
    if unknown := [name for name in formats if name not in _SUFFIXES]:
        raise ConfigError(f"--export {unknown[0]}: no such format; there are {', '.join(_SUFFIXES)}")
    if is_url(output):
        raise ConfigError(f"{output}: --export writes to a disk; use seamfree export on the results, or give a folder")
    of_objects = [name for name in formats if name != "ome-tiff"]
    if of_objects and (not config.output.table or config.instances.method == "none"):
        raise ConfigError(f"--export {of_objects[0]}: needs the table of objects, which the settings leave out")
    if "anndata" in formats and find_spec("anndata") is None:
        raise ConfigError("--export anndata: it is not installed; install it with: pip install 'seamfree[anndata]'")


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

    What is there of the same result is left alone, so that a run that was interrupted goes on.

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
        Is told a line of each file that was written.

    Returns
    -------
    list of ImageReport
        The same, but that an image whose result could not be exported has failed, with the reason.
    """
    folders = {image.name: exports_of(image, output) for image in images}
    found = []
    for report in reports:
        folder, done = folders.get(report.name), report
        if folder is not None and report.result is not None and report.status != "failed":
            try:
                _export(open_result(report.result), folder, report.name.rpartition("/")[2], formats, tell)
            except Exception as error:
                log.debug("%s could not be exported", report.result, exc_info=True)
                why = in_one_line(str(error)) if isinstance(error, SeamfreeError) else unexpected(error)
                done = replace(report, status="failed", reason=f"the result is finished, and not exported: {why}")
        found.append(done)
    return found


def _export(result: Result, folder: Path, name: str, formats: Sequence[str], tell: Callable[[str], None]) -> None:
    """Write one result."""
    writers: dict[str, Callable[[Path], object]] = {
        "ome-tiff": result.write_ome_tiff, "geojson": result.write_geojson, "anndata": result.write_anndata
    }  # fmt: skip
    made_of = _take(folder)
    # That of a plan: the same plan gives the same bytes.
    digest = str(result.provenance["digest"])
    for wanted in formats:
        path = folder / f"{name}{_SUFFIXES[wanted]}"
        if made_of.get(path.name) == digest and path.is_file():
            continue
        writers[wanted](path)
        made_of[path.name] = digest
        with replacing(folder / EXPORTS) as beside:
            beside.write_text(json.dumps(made_of, indent=2))
        tell(f"exported: {path}")


def _take(folder: Path) -> dict[str, str]:
    """Make a folder for exports, or take the one that is there; give which results its files are of.

    Raises
    ------
    StoreError
        If it is not ours, or the disk refuses.
    """
    try:
        # A folder that has been made and not marked yet is empty.
        if folder.exists() and not (folder / EXPORTS).is_file() and any(folder.iterdir()):
            raise not_ours(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / EXPORTS).is_file():
            with replacing(folder / EXPORTS) as beside:
                beside.write_text("{}")
        held = json.loads((folder / EXPORTS).read_bytes())
        return dict(held) if isinstance(held, dict) else {}
    except ValueError:
        return {}  # damaged: all is written again
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder}: cannot be used for exports ({error.strerror or error})") from error
