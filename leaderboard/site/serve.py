"""Shows a built site on this machine, and to nobody else."""

from __future__ import annotations

import functools
import io
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"


class ServeError(OSError):
    """The site cannot be served. `strerror` says why and what to do."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server for `folder`, bound but not yet running; port 0 takes any free one. ServeError for no site and for a taken port."""
    if not (folder / "index.html").is_file():
        raise ServeError(2, f"{folder} holds no site; build one with `speedrun board build`")
    try:
        return ThreadingHTTPServer((HOST, port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise ServeError(error.errno, f"port {port} on {HOST} cannot be used ({error.strerror}); choose another with --port") from None


class _Handler(SimpleHTTPRequestHandler):
    """Files only: no listings, the site's own page for what is missing, no log."""

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: object) -> io.BytesIO | None:
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's business here."""
