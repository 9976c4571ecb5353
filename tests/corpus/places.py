"""Names and places: what a folder may hold beside images, and how images may be called."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import tifffile

from tests.corpus.case import Case, done, failed, refused
from tests.images.reading import pixels

__all__ = ["PLACES"]

FLAT = pixels((40, 50))


def named(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, FLAT)
        return folder / name

    return make


def folder_with(do: Callable[[Path], object], *, image: bool = True) -> Callable[[Path], Path]:
    """Give a folder with a good image, and something else."""

    def make(folder: Path) -> Path:
        if image:
            named("good.tif")(folder)
        do(folder)
        return folder

    return make


def link(name: str, to: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(to)


def linked(name: str, to: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(to)
        return folder / name

    return make


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.tif")
    return folder / "a.tif"


def listener(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(folder / "a.tif"))
    return folder / "a.tif"


def twins(folder: Path) -> Path:
    for name in ("a.tif", "a.tiff"):
        named(name)(folder)
    return folder


PLACES: list[Case] = [
    done("spaces", named("an image of  mine.tif")),
    done("unicode", named("細胞 ядро Zelle 🔬.tif")),
    done("brackets", named("a[1].tif")),
    done("a line break", named("a\nb.tif")),
    done("what a terminal obeys", named("a\x1b]0;owned\x07\x1b[2J.tif")),
    done("what turns writing round", named("a\u202egnp.tif")),
    done("two dots", named("...tif")),
    done("a name like an option's value", named("-o.tif")),
    failed("a very long name", named("a" * 250 + ".tif"), r": a result named after it would have a name of 250 bytes"),
    refused("a path longer than any", lambda _: "a/" * 3000, r"no such file or folder"),
    refused("a name longer than any", lambda _: "a" * 5000, r"no such file or folder"),
    refused("a name with credentials", lambda _: "https://me:geheim@host/a.zarr?token=geheim", r"https://host/a\.zarr"),
    refused(
        "a name with a secret key",
        lambda _: "s3://AKIA:ge/heim+geheim@bucket/a.zarr",
        r"^seamfree: s3://bucket/a\.zarr: an address has no user, password",
    ),
    refused("nothing of the name", lambda folder: folder / "b.tif", r"b\.tif: no such file or folder"),
    refused("a folder without images", folder_with(lambda _: None, image=False), r"no images in this folder"),
    refused(
        "a folder called like an image",
        folder_with(lambda folder: (folder / "a.tif").mkdir(), image=False),
        r"no images in this folder",
    ),
    done("a folder called like an image, beside one", folder_with(lambda folder: (folder / "a.tif").mkdir())),
    done("a TIFF called like a text", named("a.txt")),
    failed(
        "a link to itself",
        linked("a.tif", "a.tif"),
        r"a\.tif: cannot be read \(Too many levels of symbolic links\); it is a link to 'a\.tif': mend the link",
    ),
    failed(
        "a link to itself in a folder",
        folder_with(link("b.tif", "b.tif")),
        r"b\.tif: cannot be read \(Too many.*; it is a link",
    ),
    failed("a link to itself called like a Zarr", linked("b.zarr", "b.zarr"), r"b\.zarr: cannot be read"),
    failed(
        "a link to nowhere",
        linked("a.tif", "gone.tif"),
        r"a\.tif: cannot be read \(No such file or directory\); it is a link to 'gone\.tif': mend",
    ),
    done("folders in a circle", folder_with(link("up", "."))),
    failed("a pipe", pipe, r"a\.tif: neither a file nor a folder, but a pipe"),
    failed("a socket", listener, r"a\.tif: neither a file nor a folder"),
    failed("a device", lambda _: "/dev/zero", r"/dev/zero: neither a file nor a folder"),
    refused("two images of one name", twins, r"would share the result a\.ome\.zarr; rename one"),
]
