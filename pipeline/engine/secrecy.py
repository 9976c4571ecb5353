"""What keeps other users of this machine out of a local cluster, which would run any code that is sent to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["certificates", "private_folder"]


def certificates() -> dict[str, str | bool]:
    """Make a certificate for one run, and give the settings by which scheduler, workers and client all use it.

    Dask's own, self-signed and in memory. Whoever lacks it is turned away, for each side asks the other.
    """
    from distributed.security import Security

    made = Security.temporary()
    settings: dict[str, str | bool] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": made.tls_ca_file,
    }
    for role in ("client", "scheduler", "worker"):
        settings[f"distributed.comm.tls.{role}.cert"] = getattr(made, f"tls_{role}_cert")
        settings[f"distributed.comm.tls.{role}.key"] = getattr(made, f"tls_{role}_key")
    return settings


def private_folder() -> str:
    """Give a folder for what workers keep beside their work, which no other user can write to or look into.

    One for all runs of a user, so that Dask finds there what killed workers have left, and removes it.
    """
    folder = Path(tempfile.gettempdir()) / f"seamfree-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        held = folder.lstat()
        if folder.is_symlink() or held.st_uid != os.getuid() or held.st_mode & 0o077:
            return tempfile.mkdtemp(prefix="seamfree-")
    return str(folder)
