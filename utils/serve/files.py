"""The page and its files, read once: no path of a request is ever opened."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
POLICY = (  # nothing but these files and this server's answers
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """Serve index.html at /, the other files at /page/NAME."""
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in KINDS:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            add_file(app, path, file.read_bytes(), KINDS[file.suffix])


def add_file(app: FastAPI, path: str, body: bytes, kind: str) -> None:
    """Serve bytes at a path."""

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return Response(body, media_type=kind, headers=headers)
