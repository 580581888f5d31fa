"""A web server with a documentation tree: the reference pages of installed packages, as pydoc writes them."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import pydoc
import threading
import time
import warnings
from collections.abc import Generator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PACKAGES: Final = (
    "asyncio", "click", "concurrent", "email", "encodings", "http", "importlib", "json", "logging", "multiprocessing",
    "psycopg", "psycopg_pool", "rich", "urllib", "wsgiref", "xml",
)  # fmt: skip
LATENCY_S: Final = 0.3
"""As far away as a web page is."""

FLAKY_EVERY: Final = 12
"""One page in so many answers 503 when it is first asked for."""

_lock = threading.Lock()


def pages() -> list[str]:
    """Names of the modules that have a page."""
    found: list[str] = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found.append(name)
        for module in pkgutil.iter_modules(package.__path__, f"{name}."):
            found += _below(module.name) if module.ispkg else [module.name]
    return [name for name in found if not _is_odd(name)]


def _below(package: str) -> list[str]:
    if _is_odd(package):
        return []
    module = importlib.import_module(package)
    inner = pkgutil.iter_modules(module.__path__, f"{package}.")
    return [package, *(name for item in inner for name in (_below(item.name) if item.ispkg else [item.name]))]


def _is_odd(name: str) -> bool:
    """Modules that do something when they are imported, or need what is not installed."""
    return any(part in ("__main__", "testing", "templates", "plugin") for part in name.split("."))


@lru_cache(maxsize=1024)
def page(name: str) -> bytes | None:
    """The page of a module; None if it cannot be written."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
            return pydoc.HTMLDoc().document(module, name).encode()
        except Exception:
            return None


@contextlib.contextmanager
def serve(flaky: frozenset[str]) -> Generator[str]:
    """Serves the pages on a free port of the loopback interface, and yields the address."""
    asked: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(LATENCY_S)
            with contextlib.suppress(ConnectionError):  # whoever asked may have been killed
                self.answer()

        def answer(self) -> None:
            name = self.path.strip("/").removesuffix(".html")
            if name in flaky and name not in asked:
                asked.add(name)
                self.send_error(503)
                return
            body = page(name)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
