"""The plan of a finished result, as its provenance has it: what it says is checked before anything relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.errors import PlanError, SeamfreeError, StoreError
from pipeline.planning import RunPlan
from pipeline.printing import short
from pipeline.stores.publish import PROVENANCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.remote.paths import AnyPath

__all__ = ["noted_plan"]

_OTHER_VERSION = ("extra_forbidden", "missing", "literal_error", "union_tag_invalid")
"""What pydantic calls that a plan has other fields than those of this version, or choices that it does not know."""


def noted_plan(folder: AnyPath, provenance: Mapping[str, Any]) -> RunPlan:
    """Give the plan of a result, for the place where it lies now.

    Parameters
    ----------
    folder : Path or RemotePath
        The result's folder.
    provenance : mapping
        Its provenance.

    Raises
    ------
    PlanError
        If it was made by a version whose plan is not understood.
    StoreError
        If the plan makes no sense: names the field, and what stands there.
    """
    # A result may come from anywhere: what it says of code that may be run is no permission.
    changes = {"output": str(folder), "factory": None, "trust_model_code": False}
    place = folder / PROVENANCE
    try:
        plan = RunPlan.model_validate(provenance["plan"] | changes)
    except (KeyError, TypeError) as error:
        raise PlanError(f"{place}: the plan is not one of this version of seamfree") from error
    except ValidationError as error:
        found = error.errors()
        if any(each["type"] in _OTHER_VERSION for each in found):
            raise PlanError(f"{place}: the plan is not one of this version of seamfree") from error
        raise StoreError(
            f"{place}: plan.{'.'.join(str(part) for part in found[0]['loc'])} is {short(repr(found[0]['input']))}: "
            f"{found[0]['msg']}"
        ) from error
    except SeamfreeError as error:
        raise StoreError(f"{place}: the plan makes no sense: {error}") from error
    for name, held, count in (
        ("object_classes", plan.object_classes, len(plan.classes)),
        ("contact_classes", plan.contact_classes, len(plan.classes)),
        ("channels", plan.channels, plan.source.shape[1]),
    ):
        if max(held, default=-1) >= count:
            raise StoreError(f"{place}: plan.{name} is {list(held)}: there are {count}, counted from 0")
    for name in ("tiles", "array_specs", "subject"):
        _check_property(plan, name, str(place))
    return plan


def _check_property(plan: RunPlan, name: str, place: str) -> None:
    """Refuse a plan whose fields are each possible, but not together."""
    try:
        getattr(plan, name)
    except (SeamfreeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        told = f"core {list(plan.core)}, " if name == "tiles" else ""
        raise StoreError(f"{place}: the plan makes no sense: {told}{type(error).__name__}: {error}") from error
