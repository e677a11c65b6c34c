"""The whole simulator: house, gateway, Enlighten and control endpoint, each server on its own port."""

import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self

from services.simulator.authentication import (
    Authentication,
    DigestAuthentication,
    NoAuthentication,
    TokenAuthentication,
)
from services.simulator.battery import Battery
from services.simulator.clock import Clock
from services.simulator.control import Control
from services.simulator.day import Roof
from services.simulator.digest import DigestVerifier
from services.simulator.enlighten import Account, Enlighten
from services.simulator.envoy_responses import envoy_response
from services.simulator.faults import DELIVERY_FAULTS, Fault, Faults, parse_fault
from services.simulator.gateway import Gateway, Model
from services.simulator.house import House
from services.simulator.inverters import make_inverters
from services.simulator.keys import create_tls, load_or_create_key, load_or_create_tls
from services.simulator.recording import read_recording
from services.simulator.request_log import RequestLog, Served
from services.simulator.response import Request, Response, html_response
from services.simulator.settings import SimulatorSettings
from services.simulator.sun import Place
from services.simulator.tokens import TokenIssuer
from services.simulator.web_server import Delivery, WebServer

logger = logging.getLogger(__name__)

PHASES = {"metered-single": 1, "metered-split": 2, "metered-three": 3, "unmetered": 1}
BATTERY_WH, BATTERY_W = 5000.0, 3840.0
HTTPS_PORT, HTTP_PORT = 8443, 8080
SLOW_PATHS = ("/production", "/home", "/inventory")
READ_METHODS = ("GET", "HEAD")

Respond = Callable[[Request], Response]


class Simulator:
    """A running simulator: :meth:`start` opens its ports, :meth:`stop` closes them; also a context manager."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._servers: list[WebServer] = []
        self.gateway: Gateway | None = None
        """The simulated gateway; None for a recorded one."""
        self.request_log = RequestLog()
        self.clock = Clock(settings.start_time, settings.speed)
        self.faults = Faults(self._on_fault_added, self._on_fault_removed)

    def start(self) -> None:
        """Open all ports and accept requests.

        Raises:
            OSError: a port is in use, or the state folder cannot be written.
            ValueError: the recording or a stored key is invalid.
        """
        settings = self._settings
        self.token_issuer = TokenIssuer(load_or_create_key(settings.state_dir / "enlighten-key.pem"))
        if settings.recording:
            recording = read_recording(settings.recording)
            self.serial, needs_token, respond = recording.serial, recording.needs_token, recording.respond
        else:
            gateway = self.gateway = build_gateway(settings, self.clock)
            self.serial, needs_token = settings.serial, gateway.model.needs_token
            respond = partial(_respond_from_gateway, gateway)
        self._certificate_file = settings.state_dir / f"gateway-{self.serial}.pem"
        envoy = partial(_respond_if_authenticated, self._authentication(needs_token=needs_token), respond)
        account = Account(
            settings.email, settings.password, settings.account, frozenset({self.serial}), settings.token_lifetime_s
        )
        enlighten = Enlighten(account, self.token_issuer, self.request_log)
        control = Control(self.faults, self.request_log, self.clock, self.token_issuer, self.serial)
        envoy_port = settings.envoy_port
        if envoy_port is None:
            envoy_port = HTTPS_PORT if needs_token else HTTP_PORT
        envoy_tls = load_or_create_tls(self._certificate_file, self.serial) if needs_token else None
        enlighten_file = settings.state_dir / "enlighten.pem"
        enlighten_tls = load_or_create_tls(enlighten_file, "localhost") if settings.enlighten_tls else None
        try:
            self._envoy = self._bind("envoy", envoy_port, partial(self._deliver, "envoy", envoy), envoy_tls)
            deliver = partial(self._deliver, "enlighten", enlighten.respond)
            self._enlighten = self._bind("enlighten", settings.enlighten_port, deliver, enlighten_tls)
            self._control = self._bind(
                "control", settings.control_port, lambda request: Delivery(control.respond(request)), None
            )
        except OSError:
            self.stop()
            raise
        self.envoy_url, self.enlighten_url, self.control_url = self._envoy.url, self._enlighten.url, self._control.url
        for text in settings.fault:
            self.faults.add(parse_fault(text))
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Close all ports and connections."""
        for server in self._servers:
            server.stop()
        self._servers.clear()

    def token(self, serial: str | None = None, *, kind: str = "owner", lifetime_s: float | None = None) -> str:
        """Return a token without a log-in.

        Args:
            serial: the gateway; this one if None.
            kind: of the account, ``owner`` or ``installer``.
            lifetime_s: that of the kind of account if None.
        """
        return self.token_issuer.issue(serial or self.serial, kind, self._settings.email, lifetime_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def _authentication(self, *, needs_token: bool) -> Authentication:
        if not self._settings.auth:
            return NoAuthentication()
        if needs_token:
            return TokenAuthentication(self.token_issuer, self.serial)
        passwords = {"envoy": self.serial[-6:]}
        if self._settings.installer_password:
            passwords["installer"] = self._settings.installer_password
        return DigestAuthentication(DigestVerifier(passwords))

    def _bind(
        self, name: str, port: int, respond: Callable[[Request], Delivery], tls: ssl.SSLContext | None
    ) -> WebServer:
        host = self._settings.host
        try:
            server = WebServer(name, (host, port), respond, tls)
        except OSError as error:
            setting = f"--{name}-port, SIMULATOR_{name.upper()}_PORT"
            raise OSError(
                error.errno, f"{name} cannot listen on {host}:{port} ({setting}): {error.strerror}"
            ) from error
        self._servers.append(server)
        return server

    def _deliver(self, server: str, respond: Respond, request: Request) -> Delivery:
        """Return the response to a request with the faults that hit it, and log it."""
        faults = self.faults.hit(server, request.path)
        responses = ((fault, response) for fault in faults if (response := fault.respond()))
        replacing_fault, replacement = next(responses, (None, None))
        response = replacement or respond(request)
        slow_faults = [fault for fault in faults if fault.name == "slow"]
        delay_s = sum(fault.parameters["delay_s"] for fault in slow_faults)
        if server == "envoy" and not replacement and request.path.startswith(SLOW_PATHS):
            delay_s += self._settings.slow_answers_s
        delivery_fault = next((fault for fault in faults if fault.name in DELIVERY_FAULTS), None)
        effective = [fault.name for fault in faults if fault in (replacing_fault, delivery_fault, *slow_faults)]
        self.request_log.add(
            Served(
                at=time.time(),
                clock=self.clock.gateway_now(),
                server=server,
                method=request.method,
                path=request.target,
                status=response.status,
                body=response.body.decode("utf-8", "replace"),
                fault=",".join(effective) or None,
            )
        )
        if delivery_fault is None:
            return Delivery(response, delay_s)
        return Delivery(response, delay_s, delivery_fault.name, delivery_fault.parameters)

    def _on_fault_added(self, fault: Fault) -> None:
        logger.info("fault %s added: %s", fault.name, fault.as_json())
        if fault.name == "reboot" and self.gateway:
            self.gateway.reboot()
        elif fault.name == "wrong-clock":
            self.clock.gateway_offset_s = fault.parameters["offset_s"]
        elif fault.name == "new-certificate" and self.envoy_url.startswith("https:"):
            self._envoy.replace_certificate(create_tls(self._certificate_file, self.serial))

    def _on_fault_removed(self, fault: Fault) -> None:
        logger.info("fault %s removed", fault.name)
        if fault.name == "reboot" and self.gateway:
            self.gateway.restore_counters()
        elif fault.name == "wrong-clock":
            self.clock.gateway_offset_s = 0.0


def build_gateway(settings: SimulatorSettings, clock: Clock) -> Gateway:
    """Return the simulated gateway, whose past days are already computed, so that no request waits for them.

    Raises:
        OSError: their totals cannot be stored.
    """
    phases = PHASES[settings.model]
    battery = Battery(settings.batteries * BATTERY_WH, settings.batteries * BATTERY_W)
    roof = Roof(
        str(settings.seed),
        Place(settings.latitude, settings.longitude),
        settings.timezone,
        settings.commissioned,
        phases,
        settings.model != "unmetered",
        settings.inverters,
        battery,
    )
    model = Model(
        settings.serial,
        int(settings.firmware),
        phases,
        roof.metered,
        settings.timezone,
        tuple(make_inverters(settings.serial, settings.inverters)),
        settings.batteries,
        battery,
        roof.midnight(settings.commissioned),
    )
    gateway = Gateway(model, House(roof, settings.state_dir), clock)
    gateway.state()
    return gateway


def _respond_from_gateway(gateway: Gateway, request: Request) -> Response:
    return envoy_response(gateway.model, gateway.state(), request.path, request.query)


def _respond_if_authenticated(authentication: Authentication, respond: Respond, request: Request) -> Response:
    response = authentication.handle(request)
    if response is None and request.path not in ("/info", "/info.xml"):
        response = authentication.authenticate(request)
    if response is not None:
        return response
    if request.method not in READ_METHODS:
        return html_response(HTTPStatus.METHOD_NOT_ALLOWED, "405 Method Not Allowed")
    return respond(request)
