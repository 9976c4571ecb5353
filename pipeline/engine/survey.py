"""What the workers of a cluster are that somebody else has started: asked before anything is planned for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pipeline.errors import ClusterError

__all__ = ["ask_workers", "check_versions", "host_of", "public_version", "wait_for_workers"]

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


def host_of(address: str) -> str:
    """Give the host of a worker's address, to name it by."""
    return address.partition("://")[2].rpartition(":")[0] or address


def public_version(name: str) -> str | None:
    """Give the version of what is installed, without what tells one build from another; None where it is not."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def wait_for_workers(client: Any, number: int, patience: float) -> None:  # noqa: ANN401 (untyped)
    """Wait until a cluster has workers.

    Parameters
    ----------
    client : distributed.Client
        A connected client.
    number : int
        So many are waited for.
    patience : float
        Seconds.

    Raises
    ------
    ClusterError
        If there are none in time.
    """
    if len(client.nthreads()) >= number:
        return
    log.warning("the cluster has no worker yet; waiting up to %.0f s for one (execution.patience)", patience)
    try:
        client.wait_for_workers(number, timeout=patience)
    except TimeoutError as error:
        raise ClusterError(
            f"no worker has joined the scheduler at {client.scheduler.address} within {patience:.0f} s; start some "
            "(dask worker ADDRESS), look at the queue, or raise execution.patience"
        ) from error


def check_versions(client: Any, names: Iterable[str]) -> None:  # noqa: ANN401 (untyped)
    """Make sure that workers have seamfree, and the same versions of what numbers depend on.

    Nothing of seamfree runs on them for that: it might not be there.

    Parameters
    ----------
    client : distributed.Client
        A connected client.
    names : iterable of str
        Distributions that are compared, with those of this machine.

    Raises
    ------
    ClusterError
        If one is missing or differs; names worker, package, and both versions. Builds of one version (``+cpu``,
        ``+cu128``) may differ from that of this machine, which computes nothing, but not among workers.
    """
    found = client.get_versions(packages=list(names))
    here = found["client"]["packages"]
    first: dict[str, tuple[str, str | None]] = {}
    for address, facts in found["workers"].items():
        there = facts["packages"]
        if here["seamfree"] is not None and there["seamfree"] is None:
            raise ClusterError(
                f"the worker at {address} has no seamfree; install it there, version {here['seamfree']}, in the "
                "environment that the worker is started from"
            )
        for name, ours in here.items():
            if name not in ("python", *names) or ours is None:
                continue
            theirs = there.get(name)
            shown = {"driver": _shown(name, ours), "worker": _shown(name, theirs)}
            if shown["driver"] != shown["worker"]:
                raise ClusterError(
                    f"{name} is {shown['driver']} here and {shown['worker']} on the worker at {address}; results would "
                    "depend on who computes what: install the same version in both places"
                )
            other, before = first.setdefault(name, (address, theirs))
            if name != "python" and before != theirs:
                raise ClusterError(
                    f"{name} is {before} on the worker at {other} and {theirs} on the one at {address}; results would "
                    "depend on who computes what: install the same build in both places"
                )


def _shown(name: str, held: str | None) -> str:
    """Give the part of a version that must agree: of Python, what its pickles depend on."""
    if held is None:
        return "missing"
    return ".".join(held.split(".")[:2]) if name == "python" else held.partition("+")[0]


def ask_workers(
    client: Any,  # noqa: ANN401 (untyped)
    question: Callable[..., Answer],
    *arguments: Any,  # noqa: ANN401 (whatever the question is about)
    one_per_host: bool = False,
) -> dict[str, Answer]:
    """Call a function on the workers, and give what each answers, by its address.

    Parameters
    ----------
    client : distributed.Client
        A connected client.
    question : callable
        A module-level function of seamfree.
    *arguments
        What it is called with.
    one_per_host : bool
        Whether one worker speaks for all of its host.

    Raises
    ------
    ClusterError
        If the question cannot be answered.
    """
    addresses = sorted(client.nthreads())
    if one_per_host:
        addresses = list({host_of(address): address for address in reversed(addresses)}.values())
    try:
        answers: dict[str, Answer] = client.run(question, *arguments, workers=addresses)
    except Exception as error:
        told = " ".join(str(error).split())
        raise ClusterError(f"a worker of the cluster cannot be asked ({type(error).__name__}: {told})") from error
    return answers
