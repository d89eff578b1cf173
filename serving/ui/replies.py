"""Answers with the page's headers: nothing is cached, guessed or told to other hosts."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response

SECURE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
# Styles may stand in the page: the swatches' colours and the pictures' proportions are set by the scripts.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A run's document is a page of its own with inline scripts and pictures. It gets an origin of its own: it can read
# nothing of the page around it, and ask nobody.
DOCUMENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)


def page_reply(content: bytes, kind: str | None) -> Response:
    """A file of the page."""
    return Response(content, media_type=kind, headers=SECURE | {"Content-Security-Policy": PAGE_POLICY})


def document_reply(content: str) -> Response:
    """A run's document in HTML."""
    headers = SECURE | {"Content-Security-Policy": DOCUMENT_POLICY}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


def told_reply(content: bytes, kind: str, told: dict[str, Any], **headers: str) -> Response:
    """Bytes, and what they are in the header ``X-Told``."""
    return Response(content, media_type=kind, headers=SECURE | {"X-Told": json.dumps(told)} | headers)
