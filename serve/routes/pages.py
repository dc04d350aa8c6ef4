"""The web page at `/` and the API pages; none loads anything from another host."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

_STATIC = Path(__file__).parents[1] / "static"
_ASSETS = "/api/docs/assets"
_COMMON = "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_PAGE_POLICY = f"default-src 'self'; img-src 'self' blob: data:; {_COMMON}"
# Swagger UI and Redoc are started by a script in their page and style their own elements.
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    f" img-src 'self' data:; worker-src blob:; {_COMMON}"
)
# Swagger UI has dark colours, but does not ask for what the user prefers.
_DARK = b"""<meta name="color-scheme" content="light dark"><script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
</script>"""
_HEADERS = {
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def install(app: FastAPI) -> None:
    """Add the pages and their assets to the application."""
    files = StaticFiles(directory=_STATIC)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """Draw, drop, paste or upload a digit."""
        return _guarded(await files.get_response("index.html", request.scope), _PAGE_POLICY)

    @app.get("/api/docs", include_in_schema=False)
    async def swagger() -> Response:
        """The documentation, to try out."""
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
        )
        dark = HTMLResponse(bytes(page.body).replace(b"</head>", _DARK + b"</head>"))
        return _guarded(dark, _DOCS_POLICY)

    @app.get("/api/redoc", include_in_schema=False)
    async def redoc() -> Response:
        """The documentation, to read."""
        page = get_redoc_html(
            openapi_url="/openapi.json",
            title=app.title,
            redoc_js_url=f"{_ASSETS}/redoc.standalone.js",
            redoc_favicon_url=f"{_ASSETS}/favicon.png",
            with_google_fonts=False,
        )
        return _guarded(page, _DOCS_POLICY)

    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))
    app.mount("/static", files)


def _guarded(response: Response, policy: str) -> Response:
    response.headers.update(_HEADERS | {"Content-Security-Policy": policy})
    return response
