"""Notifications: a webhook, kept as a block on Prefect's server, is told what has become of each image."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prefect.blocks.webhook import Webhook

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

__all__ = ["BLOCK", "announce", "save_webhook"]

BLOCK = "seamfree-notify"
"""Name of the block; who makes one of this name is told."""

log = logging.getLogger(__name__)


def save_webhook(url: str) -> None:
    """Keep a URL on the server, which shows it to nobody: it may hold a token."""
    Webhook(method="POST", url=url, allow_private_urls=True).save(BLOCK, overwrite=True)


async def announce(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell the webhook, if there is one, what has become of a run. A hook of `segment_image`.

    That it cannot be told is logged, and changes nothing.
    """
    try:
        block: Any = await Webhook.aload(BLOCK)
    except ValueError:
        return
    image = flow_run.parameters.get("image", {})
    told = {
        "flow": flow.name,
        "run": flow_run.name,
        "run_id": str(flow_run.id),
        "image": image.get("path") if isinstance(image, dict) else str(getattr(image, "path", image)),
        "output": flow_run.parameters.get("output"),
        "state": state.name,
        "message": state.message,
    }
    try:
        (await block.call(told)).raise_for_status()
    except Exception as error:  # noqa: BLE001 (whatever is wrong with who is told)
        log.warning("%s: the webhook could not be told (%s)", flow_run.name, type(error).__name__)
