"""Serves Graphite's render API from Whisper files at ``/render`` and ``/metrics/find``, and the page at ``/``.

A point appears when Carbon has written it, about a second after it was received. Points in Carbon's cache are not
queried: the response of that protocol is a pickle, and nothing from a network is unpickled here.
"""

import html
import importlib
import importlib.resources
import json
import logging
import os
import sys
import urllib.parse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import waitress
from flask import Flask, Response, send_file, send_from_directory

from deploy.local.carbon import whisper_directory
from deploy.local.settings import HOST, RECENT_S, LocalSettings
from shared import logs
from shared.files import write_atomically
from shared.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("deploy.local.graphite")

PAGE = Path(__file__).parent / "page"
THREADS = 4

CAIRO_MISSING = "pictures need the system library libcairo2 (apt install libcairo2); or use format=json\n"

SECURITY_HEADERS = {
    # The page loads nothing from other hosts. The chart library uses inline styles.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:",
    "X-Content-Type-Options": "nosniff",
}


class CairoMissingError(Exception):
    """A picture was requested on a machine without libcairo2."""


class _NoCairo(ModuleType):
    """Replaces cairocffi, which graphite-render always imports but uses only for pictures."""

    def __getattr__(self, name: str) -> object:
        raise CairoMissingError(name)


def _replace_missing_cairo() -> None:
    try:
        importlib.import_module("cairocffi")
    except OSError:  # the Python package is installed, the library that it loads is not
        sys.modules["cairocffi"] = _NoCairo("cairocffi")


def render_configuration(whisper: Path) -> str:
    """Return graphite-render's YAML configuration, as JSON, which is valid YAML."""
    return json.dumps(
        {
            "finders": ["graphite_render.finders.whisper.WhisperFinder"],
            "whisper": {"directories": [str(whisper)]},
            "render_errors": False,
            # Its default handler logs every request, with a formatter that fails.
            "logging": {
                "disable_existing_loggers": False,
                "handlers": {"plain": {"class": "logging.StreamHandler"}},
                "loggers": {"graphite_render": {"level": "WARNING", "handlers": ["plain"], "propagate": False}},
            },
        }
    )


def build(settings: LocalSettings) -> "WSGIApplication":
    """Return the web application: graphite-render's, with the page added."""
    home = settings.state_dir / "graphite"
    configuration = home / "conf" / "render.yaml"
    write_atomically(configuration, render_configuration(whisper_directory(home)), durable=False)
    os.environ["GRAPHITE_API_CONFIG"] = str(configuration)  # read when the module below is imported
    _replace_missing_cairo()
    from graphite_render.app import app  # noqa: PLC0415

    application: Flask = app
    _add_page(application, settings.carbon_prefix)
    application.register_error_handler(
        CairoMissingError, lambda _error: (CAIRO_MISSING, 501, {"Content-Type": "text/plain"})
    )
    power = f"{settings.carbon_prefix}.*.*.power_w"
    return with_default_query(application, {"target": power, "from": f"-{RECENT_S}s", "format": "json"})


def with_default_query(application: "WSGIApplication", parameters: Mapping[str, str]) -> "WSGIApplication":
    """Return an application that responds to a bare ``/render``, an error to Graphite, as if it had these parameters.

    ``make run`` prints that address, for people to open and for programs to add parameters to.
    """
    query = urllib.parse.urlencode(parameters)

    def respond(request: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        if (request["REQUEST_METHOD"], request["PATH_INFO"], request["QUERY_STRING"]) == ("GET", "/render", ""):
            request["QUERY_STRING"] = query
        return application(request, start_response)

    return respond


def _add_page(app: Flask, carbon_prefix: str) -> None:
    index = (PAGE / "index.html").read_text().replace("{{carbon_prefix}}", html.escape(carbon_prefix))
    chart_library = Path(str(importlib.resources.files("plotly"))) / "package_data" / "plotly.min.js"

    def chart() -> Response:
        return send_file(chart_library, conditional=True, max_age=24 * 3600)

    def secure(response: Response) -> Response:
        response.headers.extend(SECURITY_HEADERS)
        return response

    app.add_url_rule("/", "page", lambda: index)
    app.add_url_rule("/page/<path:path>", "page_file", partial(send_from_directory, PAGE))
    app.add_url_rule("/page/plotly.min.js", "chart_library", chart)
    app.after_request(secure)


def main() -> None:
    """Serve until the process is stopped."""
    settings = load(LocalSettings)
    application = build(settings)
    logs.configure("INFO", "text")  # after graphite-render, which replaces the formatters of the root logger
    logger.info("serving Graphite's render API on %s/render", settings.graphite_url)
    waitress.serve(application, host=HOST, port=settings.graphite_port, threads=THREADS, _quiet=True)


if __name__ == "__main__":
    main()
