"""Serves Graphite's render API from Whisper files at ``/render`` and ``/metrics/find``, and the page for it at ``/``.

Points appear when Carbon has written them, a second or so after it received them. Asking Carbon for what it still
holds in memory would bring them at once, but that protocol answers with a pickle, and what comes from a network is not
unpickled here.
"""

import html
import importlib
import importlib.resources
import json
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import waitress
from flask import Flask, Response, send_file, send_from_directory

from deploy.local.carbon import whisper_directory
from deploy.local.settings import HOST, LocalSettings
from shared.settings import load

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

PAGE = Path(__file__).parent / "page"
THREADS = 4

NO_CAIRO = "pictures need the system library libcairo2 (apt install libcairo2); ask with format=json\n"

SECURITY_HEADERS = {
    # The page needs nothing from elsewhere. The chart library styles its elements in place.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:",
    "X-Content-Type-Options": "nosniff",
}


class CairoMissingError(Exception):
    """A picture was asked for on a machine without libcairo2."""


class _NoCairo(ModuleType):
    """Stands in for cairocffi, which graphite-render imports at once and needs for pictures alone."""

    def __getattr__(self, name: str) -> object:
        raise CairoMissingError(name)


def _stand_in_for_cairo() -> None:
    try:
        importlib.import_module("cairocffi")
    except OSError:  # the Python package is there, the library it loads is not
        sys.modules["cairocffi"] = _NoCairo("cairocffi")


def render_configuration(whisper: Path) -> str:
    """Return graphite-render's YAML configuration, written as JSON, which YAML contains."""
    return json.dumps(
        {
            "finders": ["graphite_render.finders.whisper.WhisperFinder"],
            "whisper": {"directories": [str(whisper)]},
            "render_errors": False,
            # Its own handler has a formatter that fails, and tells every request.
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
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(render_configuration(whisper_directory(home)))
    os.environ["GRAPHITE_API_CONFIG"] = str(configuration)  # read when the module below is imported
    _stand_in_for_cairo()
    from graphite_render.app import app  # noqa: PLC0415

    application: Flask = app
    _add_page(application, settings.carbon_prefix)
    application.register_error_handler(
        CairoMissingError, lambda _error: (NO_CAIRO, 501, {"Content-Type": "text/plain"})
    )
    return application


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
    """Serve until told to stop."""
    settings = load(LocalSettings)
    application = build(settings)
    print(f"Graphite's render API on {settings.graphite_url}/render", flush=True)  # noqa: T201
    waitress.serve(application, host=HOST, port=settings.graphite_port, threads=THREADS, _quiet=True)


if __name__ == "__main__":
    main()
