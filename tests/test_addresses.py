"""What is shown and kept of texts with addresses in them."""

from __future__ import annotations

import pytest

from pipeline.remote.addresses import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:geheim@host/a?b=1", "https://host/a?b=1"),
        ("s3://AKIA:ge/he+im@bucket/a", "s3://bucket/a"),
        ("db+driver://me:ge@heim@host:5432/db", "db+driver://host:5432/db"),
        ("to https://host/a?X-Amz-Signature=geheim&b=1: no", "to https://host/a?X-Amz-Signature=...&b=1: no"),
        ("https://host/?auth=geheim&sig=geheim", "https://host/?auth=...&sig=..."),
        ("http://host:8080/a@2x.tif", "http://host:8080/a@2x.tif"),
        ("http://[::1]:8080/a@2x.tif", "http://[::1]:8080/a@2x.tif"),
        ("https://host/me:you@home.tif", "https://host/me:you@home.tif"),
        ("tls://10.0.0.5:8786, me@home", "tls://10.0.0.5:8786, me@home"),
    ],
)
def test_users_passwords_and_tokens_are_left_out_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
