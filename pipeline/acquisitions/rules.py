"""When an acquisition counts as finished, and what is done about those that never are: a user's wishes, validated."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config import Settings, Whole

__all__ = ["WatchRules"]

_PLACES = re.compile(r"\{(?:name|stem)\}")

Seconds = Annotated[float, Field(ge=0, le=30 * 86400, allow_inf_nan=False)]


class WatchRules(Settings):
    """How a watched folder is looked through."""

    settle: Seconds = Field(
        default=30.0,
        description="Seconds for which the size and the times of all files of an acquisition must have been still.",
    )
    patience: Seconds = Field(
        default=600.0,
        description="Seconds for which an acquisition that is still, and cannot be read or is not complete, is waited "
        "for; then it is put in quarantine, and looked at again when it changes.",
    )
    sentinel: str | None = Field(
        default=None,
        description="Name of a file that the microscope writes beside an acquisition when it is finished, such as "
        "'{name}.done', where {name} stands for the acquisition's file name and {stem} for that without suffix.",
    )
    missing_chunks: Literal["wait", "zeros"] = Field(
        default="wait",
        description="What it means that chunks, strips or planes are not there: wait, as for a writer at work; or "
        "zeros, as the formats have it, for writers that leave out what is empty.",
    )
    begin: Seconds = Field(
        # A server of Prefect's on SQLite may wait for its database for 60 s, and more than once.
        default=180.0,
        description="Seconds that a run may take to begin once its process, or its container, is asked for; one that "
        "takes longer counts as dead.",
    )
    attempts: Whole = Field(
        default=3, ge=1, le=100, description="After so many runs of it that died by themselves, one is given up."
    )

    @field_validator("sentinel")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        """Refuse what is no name of a file beside the acquisition."""
        if value is None:
            return None
        if any(brace in _PLACES.sub("", value) for brace in "{}"):
            raise ValueError("only {name} and {stem} may stand in braces")
        if not value or "/" in value or value in (".", "..") or "\0" in value:
            raise ValueError("a name of a file is wanted, without a folder")
        return value

    def sentinel_of(self, name: str, stem: str) -> str | None:
        """Give the name of the file that tells that an acquisition is finished.

        Parameters
        ----------
        name, stem : str
            The acquisition's file name, and that without suffix.

        Returns
        -------
        str or None
            None where none is waited for.
        """
        stands_for = {"{name}": name, "{stem}": stem}
        return None if self.sentinel is None else _PLACES.sub(lambda found: stands_for[found[0]], self.sentinel)
