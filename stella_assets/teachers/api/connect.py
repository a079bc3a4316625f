"""Clients of HTTP, through the proxy that the environment names."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx2

from stella_assets.teachers.api.errors import ApiError

Client = TypeVar("Client", httpx2.Client, httpx2.AsyncClient)


def new_client(kind: type[Client], **options: Any) -> Client:
    """A client that is not connected yet.

    Args:
        kind: Its class.
        options: Of the class.

    Raises:
        ApiError: The environment names a proxy that cannot be used. Its address may have a password and is not shown.
    """
    try:
        return kind(**options)
    # An unknown scheme, a SOCKS proxy without the package for it, or an invalid address.
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise ApiError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used.",
            "Name an http proxy, run `pip install socksio` for one of SOCKS, or name the service in NO_PROXY.",
        ) from None
