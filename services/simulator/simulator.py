"""The whole simulator: house, gateway, Enlighten and control address behind their ports."""

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from services.simulator.access import Access, DigestAccess, OpenAccess, TokenAccess
from services.simulator.answer import Answer, Request, html_answer
from services.simulator.battery import Battery
from services.simulator.certificate import load_or_create_key, tls_context
from services.simulator.clock import Clock
from services.simulator.control import Control
from services.simulator.day import Roof
from services.simulator.digest import DigestCheck
from services.simulator.enlighten import Account, Enlighten
from services.simulator.envoy_answers import envoy_answer
from services.simulator.faults import SPOILING, Fault, Faults, parse_fault
from services.simulator.gateway import Gateway, Model
from services.simulator.house import House
from services.simulator.inverters import fit_inverters
from services.simulator.ledger import Ledger, Served
from services.simulator.recording import read_recording
from services.simulator.settings import SimulatorSettings
from services.simulator.sun import Place
from services.simulator.tokens import TokenMint
from services.simulator.web_server import Delivery, WebServer

logger = logging.getLogger(__name__)

_PHASES = {"metered-single": 1, "metered-split": 2, "metered-three": 3, "unmetered": 1}
_BATTERY_WH, _BATTERY_W = 5000.0, 3840.0
_HTTPS_PORT, _HTTP_PORT = 8443, 8080
_SLOW_PATHS = ("/production", "/home", "/inventory")
_READ_METHODS = ("GET", "HEAD")


class Simulator:
    """A running simulator; `start` opens its ports and `stop` closes them. Also a context manager.

    `start` raises OSError where a port is taken or the state folder cannot be written, and ValueError where a recording
    or a kept key cannot be used.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._servers: list[WebServer] = []
        self.gateway: Gateway | None = None
        self.ledger = Ledger()
        self.clock = Clock(settings.start_time, settings.speed)
        self.faults = Faults(self._fault_began, self._fault_ended)

    def start(self) -> None:
        """Open all ports and begin to answer."""
        settings = self._settings
        self.mint = TokenMint(load_or_create_key(settings.state_dir / "enlighten-key.pem"))
        if settings.recording:
            recording = read_recording(settings.recording)
            self.serial, takes_tokens, read = recording.serial, recording.takes_tokens, recording.answer
        else:
            gateway = self.gateway = build_gateway(settings, self.clock)
            self.serial, takes_tokens = settings.serial, gateway.model.takes_tokens
            read = partial(_read_gateway, gateway)
        self._certificate_file = settings.state_dir / f"gateway-{self.serial}.pem"
        envoy = partial(_guarded, self._access(takes_tokens=takes_tokens), read)
        account = Account(settings.email, settings.password, settings.account, frozenset({self.serial}))
        enlighten = Enlighten(account, self.mint, self.ledger, settings.token_lifetime_s)
        control = Control(self.faults, self.ledger, self.clock, self.mint, self.serial)
        envoy_port = settings.envoy_port
        if envoy_port is None:
            envoy_port = _HTTPS_PORT if takes_tokens else _HTTP_PORT
        envoy_tls = tls_context(self._certificate_file, self.serial) if takes_tokens else None
        enlighten_file = settings.state_dir / "enlighten.pem"
        enlighten_tls = tls_context(enlighten_file, "localhost") if settings.enlighten_tls else None
        try:
            self._envoy = self._listen("envoy", envoy_port, partial(self._deliver, "envoy", envoy), envoy_tls)
            self._enlighten = self._listen(
                "enlighten",
                settings.enlighten_port,
                partial(self._deliver, "enlighten", enlighten.answer),
                enlighten_tls,
            )
            self._control = self._listen(
                "control", settings.control_port, lambda request: Delivery(control.answer(request)), None
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
        """Return a token without a log-in: for this gateway and a lifetime of that kind unless told otherwise."""
        return self.mint.issue(serial or self.serial, kind, self._settings.email, lifetime_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def _access(self, *, takes_tokens: bool) -> Access:
        if not self._settings.auth:
            return OpenAccess()
        if takes_tokens:
            return TokenAccess(self.mint, self.serial)
        passwords = {"envoy": self.serial[-6:]}
        if self._settings.installer_password:
            passwords["installer"] = self._settings.installer_password
        return DigestAccess(DigestCheck(passwords))

    def _listen(
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

    def _deliver(self, server: str, answer_to: Callable[[Request], Answer], request: Request) -> Delivery:
        """Answer a request, with the faults that hit it, and keep a record."""
        faults = self.faults.take(server, request.path)
        answers = ((fault, answer) for fault in faults if (answer := fault.answer()))
        replacing, instead = next(answers, (None, None))
        answer = instead or answer_to(request)
        delay_s = sum(fault.parameters["delay_s"] for fault in faults if fault.name == "slow")
        if server == "envoy" and not instead and request.path.startswith(_SLOW_PATHS):
            delay_s += self._settings.slow_answers_s
        spoiled = next((fault for fault in faults if fault.name in SPOILING), None)
        told = [fault.name for fault in faults if fault in (replacing, spoiled) or fault.name == "slow"]
        self.ledger.record(
            Served(
                at=time.time(),
                clock=self.clock.shown(),
                server=server,
                method=request.method,
                path=request.target,
                status=answer.status,
                body=answer.body.decode("utf-8", "replace"),
                fault=",".join(told) or None,
            )
        )
        if spoiled is None:
            return Delivery(answer, delay_s)
        return Delivery(answer, delay_s, spoiled.name, spoiled.parameters)

    def _fault_began(self, fault: Fault) -> None:
        logger.info("fault %s begins: %s", fault.name, fault.described())
        if fault.name == "reboot" and self.gateway:
            self.gateway.reboot()
        elif fault.name == "wrong-clock":
            self.clock.wrong_by_s = fault.parameters["offset_s"]
        elif fault.name == "new-certificate" and self.envoy_url.startswith("https:"):
            self._envoy.show_certificate(tls_context(self._certificate_file, self.serial, renew=True))

    def _fault_ended(self, fault: Fault) -> None:
        logger.info("fault %s ends", fault.name)
        if fault.name == "reboot" and self.gateway:
            self.gateway.restore_counters()
        elif fault.name == "wrong-clock":
            self.clock.wrong_by_s = 0.0


def build_gateway(settings: SimulatorSettings, clock: Clock) -> Gateway:
    """Return the simulated gateway, its days until now added up. Raises OSError where that cannot be kept."""
    phases = _PHASES[settings.model]
    battery = Battery(settings.batteries * _BATTERY_WH, settings.batteries * _BATTERY_W)
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
        tuple(fit_inverters(settings.serial, settings.inverters)),
        settings.batteries,
        battery,
        roof.midnight(settings.commissioned),
    )
    gateway = Gateway(model, House(roof, settings.state_dir), clock)
    gateway.view()  # adds up all days until now, so that no client waits for it
    return gateway


def _read_gateway(gateway: Gateway, request: Request) -> Answer:
    return envoy_answer(gateway.model, gateway.view(), request.path, request.query)


def _guarded(access: Access, read: Callable[[Request], Answer], request: Request) -> Answer:
    own = access.own_answer(request)
    if own is not None:
        return own
    if request.path not in ("/info", "/info.xml"):
        refusal = access.refusal(request)
        if refusal is not None:
            return refusal
    if request.method not in _READ_METHODS:
        return html_answer(405, "405 Method Not Allowed")
    return read(request)


@contextmanager
def simulated(settings: SimulatorSettings) -> Iterator[Simulator]:
    """Run a simulator for the length of a with-block."""
    with Simulator(settings) as simulator:
        yield simulator
