"""Addresses in texts, without the secrets that they may carry."""

from __future__ import annotations

import re

__all__ = ["without_secrets"]

_USER = re.compile(r"(?<=://)(?:[^/?#\s@]*(?:@[^/?#\s@]*)*|[^/?#\s@:\[]+:(?!\d+(?:/|$))[^\s@]*)@")
"""The user's name and password in a URL, also a password with slashes, as keys of object stores have them."""

_QUERY = re.compile(
    r"([?&][^=&\s#]*(?:token|key|secret|signature|sig|passw|pwd|auth|credential)[^=&\s#]*=)[^&\s#'\"]+", re.IGNORECASE
)
"""What a URL asks with, where its name tells that it is nobody else's business."""


def without_secrets(text: str) -> str:
    """Take users, passwords and tokens out of the URLs in a text."""
    return _QUERY.sub(r"\1...", _USER.sub("", text)) if "://" in text else text
