"""The gateway's responses: the endpoint of each path, and what is returned for paths that it does not have."""

from collections.abc import Callable
from http import HTTPStatus

from services.simulator.endpoints import ensemble, inverters, meters, production, system
from services.simulator.gateway import Model, State
from services.simulator.response import JSON, XML, Response, html_response, json_response

ENDPOINTS: dict[str, Callable[[Model, State], object]] = {
    **production.ENDPOINTS,
    **meters.ENDPOINTS,
    **inverters.ENDPOINTS,
    **ensemble.ENDPOINTS,
    **system.ENDPOINTS,
}
"""The function that builds the body of each path, except for ``/info`` and ``/production``."""

TOKEN_FIRMWARE_ONLY = ("/ivp/ensemble", "/ivp/ss", "/ivp/sc", "/ivp/pdm")
"""Firmware 5 responds with 404 to these (pyenphase recording 5.0.62)."""
FIRST_FIRMWARE_WITH_DEVICE_DATA = 8


def envoy_response(model: Model, state: State, path: str, query: str) -> Response:
    """Return the response to an authenticated GET."""
    if path in ("/info", "/info.xml"):
        return Response(HTTPStatus.OK, system.info(model, state).encode(), XML)
    if path == "/production" and not model.needs_token:
        # Firmware 4 and 5 refuse it while /production.json works (pyenphase recordings 4.10.35, 5.0.62).
        return html_response(HTTPStatus.UNAUTHORIZED, "401 Unauthorized")
    if path in ("/production", "/production.json"):
        return json_response(production.production(model, state, details="details=1" in query.split("&")))
    if path not in ENDPOINTS or not _has_endpoint(model, path):
        return _not_found(path)
    return json_response(ENDPOINTS[path](model, state))


def _has_endpoint(model: Model, path: str) -> bool:
    if path == "/ivp/pdm/device_data":
        return model.firmware >= FIRST_FIRMWARE_WITH_DEVICE_DATA
    return model.needs_token or not path.startswith(TOKEN_FIRMWARE_ONLY)


def _not_found(path: str) -> Response:
    """Return the response for an unknown path: JSON under /ivp, /admin and /api, elsewhere a redirect to a page."""
    if path.startswith(("/ivp/", "/admin/", "/api/")):
        content_type = f"{JSON}; charset=ISO-8859-4"
        return json_response({"error": "404 - Not Found"}, HTTPStatus.NOT_FOUND, content_type=content_type)
    if path == "/":
        return html_response(HTTPStatus.NOT_FOUND, "404 Not Found")
    location = ("Location", "/error/404")
    return html_response(HTTPStatus.MOVED_PERMANENTLY, "301 Moved Permanently", headers=(location,))
