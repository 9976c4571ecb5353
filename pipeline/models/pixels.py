"""What is done to each pixel by itself, with fixed numbers, as cards and packages say it. Knows no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["PixelRule"]


class PixelRule(BaseModel):
    """One step, with one number of each kind for all channels, or one for each channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "standardize", "clip", "binarize", "sigmoid", "softmax"] = Field(
        description="linear: times first, plus second; standardize: less first, divided by second; clip: between first "
        "and second, null for no limit; binarize: 1 above first, else 0; sigmoid: the logistic function; softmax: over "
        "the channels, of an output only."
    )
    first: tuple[float | None, ...] = (None,)
    second: tuple[float | None, ...] = (None,)

    @model_validator(mode="after")
    def _complete(self) -> PixelRule:
        wanted = {"linear": 2, "standardize": 2, "binarize": 1}.get(self.kind, 0)
        if not self.first or not self.second or any(None in each for each in (self.first, self.second)[:wanted]):
            raise ValueError(f"a step {self.kind!r} takes {wanted} number(s), for all channels or for each")
        if self.kind == "standardize" and any(each is not None and each <= 0 for each in self.second):
            raise ValueError(f"a step {self.kind!r} divides by {self.second}, which must be above 0")
        return self

    def numbers(self, channel: int) -> tuple[float | None, float | None]:
        """Give the two numbers of one channel."""
        first, second = (each[channel] if len(each) > 1 else each[0] for each in (self.first, self.second))
        return first, second

    @property
    def channels(self) -> int:
        """For how many channels there are numbers; 1 where all have the same."""
        return max(len(self.first), len(self.second))
