"""Results for an object store: made on a disk, sent when they are finished, and gone from the disk then."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, StoreError
from pipeline.remote.paths import LISTED, RemotePath, is_url, to_path
from pipeline.report.writing import report_path
from pipeline.stores.publish import PROVENANCE, recover
from pipeline.stores.sending import check_free, finish_sending, is_sent, send, sent_log, take_over

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage
    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath

__all__ = [
    "clear_sent",
    "destined",
    "local_folder",
    "on_a_disk",
    "prepare_destination",
    "send_result",
    "send_summary",
    "sent_destination",
    "set_aside",
    "stages_left",
]

log = logging.getLogger(__name__)

STAGING = "seamfree-staging"


def local_folder(output: str | Path, config: RunConfig) -> Path:
    """Give the folder on a disk in which results are made.

    Parameters
    ----------
    output : str or Path
        Where results shall go: a folder, or a URL of an object store.
    config : RunConfig
        Says where results for object stores are made.

    Raises
    ------
    ConfigError
        If it is empty, or a URL that nothing can be written to, or that the settings do not go with.
    """
    if not str(output).strip():
        raise ConfigError("-o: an empty name; give a folder, such as -o results")
    if not is_url(output):
        return Path(output)
    place = to_path(str(output))
    assert isinstance(place, RemotePath)
    if not place.is_listed:
        raise ConfigError(f"{place}: nothing can be written there; -o takes a folder, {' or '.join(LISTED)}://")
    if config.output.in_place:
        raise ConfigError(f"{place}: --in-place adds to the image itself, on a disk; leave one of them out")
    place.store  # noqa: B018 (so that what is missing is told before work starts)
    staging = Path(config.output.staging or STAGING).absolute()
    return staging.joinpath(place.scheme, *place.root.parts[0].split("://")[1:], *place.parts[1:])


def on_a_disk(output: Path) -> Path:
    """Refuse a URL where a folder on a disk is wanted.

    Raises
    ------
    ConfigError
        If it is one, which a path shows with one slash less.
    """
    if output.parts and output.parts[0] in {f"{scheme}:" for scheme in (*LISTED, "http", "https")}:
        raise ConfigError(f"{output}: a folder on a disk is wanted here; seamfree run sends results to s3://")
    return output


def destined(images: list[InputImage], output: str | Path) -> list[InputImage]:
    """Give each image the URL of its result, where results go to an object store."""
    if not is_url(output):
        return images
    place = to_path(str(output))
    return [
        replace(
            image,
            destination=str(place / f"{image.name}.ome.zarr"),
            refused=f"{image.path}: a plate's result is made in a folder; give one with -o, and copy it"
            if image.plate
            else image.refused,
        )
        for image in images
    ]


def prepare_destination(plan: RunPlan, *, fresh: bool) -> None:
    """Look at where a result shall go before work starts; finish what an interrupted run has left to do.

    Raises
    ------
    StoreError
        If there is something that seamfree has not made, or nobody answers.
    """
    if plan.destination is None:
        return
    target, local = RemotePath(plan.destination), Path(plan.output)
    check_free(target)
    recover(plan.partial, local, plan.work.name)
    if fresh:
        set_aside(plan)
        take_over(local, target)
    elif is_sent(target) and sent_log(local).exists() and _is_same(local, target):
        clear_sent(plan)


def sent_destination(plan: RunPlan) -> RemotePath | None:
    """Give where a plan's finished result lies in an object store; None where it is not there."""
    if plan.destination is None:
        return None
    target = RemotePath(plan.destination)
    return target if is_sent(target) else None


def _is_same(local: Path, target: RemotePath) -> bool:
    """Say whether what has been sent last is what lies on the disk, or what lay there."""
    try:
        return (local / PROVENANCE).read_bytes() == (target / PROVENANCE).read_bytes()
    except FileNotFoundError:
        return not local.exists()


def stages_left(plan: RunPlan, names: tuple[str, ...]) -> tuple[str, ...]:
    """Leave the stages that are still to be done: of a result that is finished on the disk, the sending alone."""
    if plan.destination is not None and (Path(plan.output) / PROVENANCE).is_file():
        return names[-1:]
    return names


def send_result(plan: RunPlan) -> dict[str, Any]:
    """Send a finished result to its place in an object store, and remove it from the disk; give its provenance.

    Raises
    ------
    StoreError
        If nobody answers, or another run is sending a result there.
    """
    assert plan.destination is not None
    local = Path(plan.output)
    send(local, RemotePath(plan.destination), report_path(plan.held) if plan.report else None)
    provenance: dict[str, Any] = json.loads((local / PROVENANCE).read_bytes())
    clear_sent(plan)
    return provenance


def send_summary(summary: Path, output: str | Path) -> AnyPath:
    """Send the summary of a run to where its results go, if that is an object store; say where it is to be read.

    Raises
    ------
    StoreError
        If nobody answers.
    """
    if not is_url(output):
        return summary
    place = to_path(str(output)) / summary.name
    assert isinstance(place, RemotePath)
    try:
        place.write_bytes(summary.read_bytes())
    except OSError as error:
        raise StoreError(f"{place}: cannot be sent ({error.strerror or error}); it lies in {summary}") from error
    return place


def clear_sent(plan: RunPlan) -> None:
    """Remove from the disk what has been sent.

    Raises
    ------
    StoreError
        If the disk refuses, or nobody answers.
    """
    assert plan.destination is not None
    local = Path(plan.output)
    set_aside(plan)
    try:
        report_path(plan.held).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{local}: cannot be removed, and has been sent ({error.strerror or error})") from error
    finish_sending(local, RemotePath(plan.destination))


def set_aside(plan: RunPlan) -> None:
    """Remove what is finished on the disk and shall not be sent.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    _remove(Path(plan.output))


def _remove(folder: Path) -> None:
    """Remove a result in one step, so that half of it is never taken for it."""
    aside = folder.with_name(f".{folder.name}.old")
    try:
        if folder.exists():
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
        if aside.exists():
            shutil.rmtree(aside)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be removed ({error.strerror or error})") from error
