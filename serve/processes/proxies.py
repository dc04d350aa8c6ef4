"""Callers' addresses behind proxies: `X-Forwarded-For` is believed if a trusted proxy sent it."""

from __future__ import annotations

from typing import cast

from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _parse_host_port, _TrustedHosts


class TrustedHosts(_TrustedHosts):
    """The addresses and networks of `TRUSTED_PROXIES`.

    Where uvicorn finds no other host in the header, it believes the first entry, which the caller
    may have written. The last one is of the proxy that is connected.
    """

    def get_trusted_client_address(self, x_forwarded_for: str) -> tuple[str, int]:
        """Return the last host that is no trusted proxy, else the last host."""
        hosts = [_parse_host_port(host.strip()) for host in x_forwarded_for.split(",")]
        others = () if self.always_trust else (h for h in reversed(hosts) if h[0] not in self)
        return next(iter(others), hosts[-1])


def behind(proxies: TrustedHosts, app: ASGIApp) -> ASGIApp:
    """Return the application with the address and the scheme that the proxies forward."""
    middleware = ProxyHeadersMiddleware(cast(ASGI3Application, app))
    middleware.trusted_hosts = proxies
    return cast(ASGIApp, middleware)
