"""Paths as clients spell them: `//models`, `/v1/models/`, without `/v1`, and HEAD for every GET."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

# The first parts of the paths that OpenAI's and Anthropic's clients put behind the base URL.
_WITHOUT_VERSION = re.compile(r"/(chat|completions|embeddings|feedback|messages|models|responses)(/|$)")


class Paths:
    """ASGI middleware that brings a path to the one spelling that routes have.

    Base URLs are typed by people: with and without `/v1`, with a slash too many at the end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"
            path = f"/v1{path}" if _WITHOUT_VERSION.match(path) else path
            # The server leaves out the body of a reply to HEAD (RFC 9110, section 9.3.2); its own scope keeps the method.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": path, "raw_path": path.encode(), "method": method}
        await self.app(scope, receive, send)
