"""What poller guarantees with gateways that are slow, hang, have a wrong clock, or are several."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from services.poller.credentials import BearerToken
from services.poller.endpoints import METERS
from services.poller.envoy import Envoy
from services.poller.errors import EndpointMissing
from services.poller.session import Session
from services.poller.settings import EnvoySettings
from services.poller.trust import TrustStore
from services.simulator.faults import parse_fault
from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.programs import HOST, Program, simulator, wait_until


class Subscriber:
    """Receives every message."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.received: list[Message] = []

    def on(self, ending: str, serial: str = "") -> list[dict[str, object]]:
        """Return what was received on the topics with an ending, as JSON."""
        while (message := self._connection.receive(0.02)) is not None:
            if isinstance(message, Message):
                self._connection.acknowledge(message)
                self.received.append(message)
        wanted = [m for m in self.received if m.topic.endswith(ending) and serial in m.topic]
        return [json.loads(message.payload) for message in wanted if message.payload.startswith(b"{")]


@pytest.fixture
def subscriber(broker: Server) -> Iterator[Subscriber]:
    """Yield a subscriber to everything."""
    settings = MqttSettings(host=HOST, port=broker.port, client_id="subscriber")
    everything = [Subscription("enphase/#")]
    with Connection(settings, stop=threading.Event(), subscriptions=everything, persistent_session=False) as connection:
        assert connection.wait_until_connected(10)
        yield Subscriber(connection)


@contextmanager
def polling(broker: Server, state: Path, *gateways: tuple[str, str], interval_s: int = 1) -> Iterator[Program]:
    """Run a poller on gateways, each host and token."""
    environment = {
        "MQTT_PORT": str(broker.port),
        "ENVOYS": json.dumps([{"host": host, "token": token} for host, token in gateways]),
        "STATE_DIR": str(state),
        "POLL_INTERVAL_S": str(interval_s),
        "POLL_INVERTERS_INTERVAL_S": "1",
        "POLL_SLOW_INTERVAL_S": "1",
    }
    with Program.python("services.poller", log=state / "poller.log", environment=environment) as poller:
        yield poller


@contextmanager
def silent_gateway() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never sends anything."""
    with socket.create_server((HOST, 0)) as listener:
        yield f"http://{HOST}:{listener.getsockname()[1]}"


class Handler(BaseHTTPRequestHandler):
    """Sends the same response to every request, and notes the credentials that it was sent."""

    status, headers_sent, body = 200, (("X-None", "-"),), b""
    credentials: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        """Respond."""
        self.credentials.append(self.headers.get("Authorization"))
        self.send_response(self.status)
        for name, value in self.headers_sent:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the address of a server."""
    with ThreadingHTTPServer((HOST, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


@contextmanager
def responding(**response: object) -> Iterator[tuple[str, list[str | None]]]:
    """Yield the address of a server with one response, and the credentials that it was sent."""
    credentials: list[str | None] = []
    with serving(type("Responding", (Handler,), {"credentials": credentials, **response})) as url:
        yield url, credentials


def info_of(software: str, serial: str = "122012345678") -> bytes:
    """Return an /info response."""
    device = f"<sn>{serial}</sn><software>{software}</software>"
    return f"<envoy_info><device>{device}</device></envoy_info>".encode()


def wait_for_readings(subscriber: Subscriber, serial: str, count: int) -> None:
    """Wait until a gateway has so many readings of the grid."""
    wait_until(lambda: len(subscriber.on("/readings/grid", serial)) >= count, f"readings of {serial}")


def test_a_silent_gateway_delays_no_other(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """Of three, one accepts connections and sends nothing: the others' readings come, under their own serials."""
    with ExitStack() as stack:
        silent = stack.enter_context(silent_gateway())
        roofs = [
            stack.enter_context(simulator(tmp_path / serial, serial=serial, inverters=2))
            for serial in ("122000000001", "122000000002")
        ]
        tokens = [(roof.envoy_url, roof.token()) for roof in roofs]
        stack.enter_context(polling(broker, tmp_path, tokens[0], (silent, ""), tokens[1]))

        for roof in roofs:
            wait_for_readings(subscriber, roof.serial, 4)
        metrics = wait_until(
            lambda: [each for each in subscriber.on("/poller/metrics") if each["gateways_online"]], "metrics"
        )[-1]
    assert (metrics["gateways"], metrics["gateways_online"]) == (3, 2)
    assert float(str(metrics["polls"])) >= 2
    assert float(str(metrics["readings_taken"])) > 0


def test_slow_endpoints_do_not_delay_the_meters(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """production.json takes longer than half a slot: it is fetched where it fits, never during another request."""
    with (
        simulator(tmp_path, slow_answers_s=1.1) as roof,
        polling(broker, tmp_path, (roof.envoy_url, roof.token()), interval_s=2),
    ):
        wait_until(lambda: len(subscriber.on("/readings/grid")) >= 6, "six readings")
        meters = roof.request_log.served(server="envoy", path="/ivp/meters/readings")
        slow = roof.request_log.served(server="envoy", path="/production.json")

    assert len(slow) >= 1
    slots = [int(float(str(response["at"])) // 2) for response in meters[1:]]
    assert len(set(slots)) == len(slots), "no slot is read twice"
    assert slots[-1] - slots[0] <= len(slots), "at most one is missed, on a busy machine"


def test_a_wrong_clock_is_reported_and_corrected(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """The gateway's clock is set wrong while it is polled, and right again: the readings' times stay true."""
    with simulator(tmp_path) as roof, polling(broker, tmp_path, (roof.envoy_url, roof.token())):
        wait_until(lambda: subscriber.on("/readings/grid"), "a reading")
        assert "clock_offset_s" not in subscriber.on("/info")[-1]

        roof.faults.add(parse_fault("wrong-clock:offset_s=-7200"))
        wrong = wait_until(lambda: [i for i in subscriber.on("/info") if "clock_offset_s" in i], "the offset in info")
        before = len(subscriber.on("/readings/grid"))
        wait_until(lambda: len(subscriber.on("/readings/grid")) > before + 2, "readings by the wrong clock")
        roof.faults.remove()
        wait_until(lambda: "clock_offset_s" not in subscriber.on("/info")[-1], "a right clock")
        before = len(subscriber.on("/readings/grid"))
        wait_until(lambda: len(subscriber.on("/readings/grid")) > before + 2, "readings by the right clock")

    assert abs(int(str(wrong[0]["clock_offset_s"])) + 7200) <= 5
    now = time.time()
    times = [int(str(reading["timestamp"])) for reading in subscriber.on("/readings/grid")]
    assert all(now - 120 < timestamp <= now + 5 for timestamp in times)
    assert not subscriber.on("/history/grid") or len(subscriber.on("/history/grid")) <= 2


def test_retry_after_of_a_gateway_is_honoured(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """503 with Retry-After: nothing is requested in between."""
    with simulator(tmp_path) as roof, polling(broker, tmp_path, (roof.envoy_url, roof.token())):
        wait_until(lambda: subscriber.on("/readings/grid"), "a reading")
        roof.faults.add(parse_fault("503:server=envoy:retry_after_s=4:count=1"))
        served = partial(roof.request_log.served, server="envoy")
        busy = wait_until(lambda: [a for a in served() if a["status"] == 503], "the 503")[0]
        later = wait_until(
            lambda: [a for a in served() if float(str(a["at"])) > float(str(busy["at"]))],
            "the next request",
        )[0]

    assert float(str(later["at"])) - float(str(busy["at"])) >= 3.9


def test_a_certificate_that_changes_during_polling_is_logged_once_and_gets_no_credential(
    broker: Server, subscriber: Subscriber, tmp_path: Path
) -> None:
    """The error names both fingerprints and what to do; the impostor is requested /info and nothing else."""
    with ExitStack() as stack:
        with simulator(tmp_path) as roof:
            token, port = roof.token(), int(roof.envoy_url.rpartition(":")[2])
            poller = stack.enter_context(polling(broker, tmp_path, (roof.envoy_url, token)))
            wait_until(lambda: subscriber.on("/readings/grid"), "a reading")
        for certificate in (tmp_path / "simulator").glob("gateway-*.pem"):
            certificate.unlink()
        with simulator(tmp_path, envoy_port=port) as impostor:
            wait_until(lambda: "no credential was sent" in poller.output, "the error")
            wait_until(lambda: len(impostor.request_log.served(server="envoy")) >= 3, "three attempts")
            requested = {response["path"] for response in impostor.request_log.served(server="envoy")}

    logged = [line for line in poller.output.splitlines() if "no credential was sent" in line]
    pinned = next((tmp_path / "poller").glob("*.sha256"))
    assert requested == {"/info"}
    assert len(logged) == 1
    assert pinned.read_text().splitlines()[0] in logged[0]
    assert "--accept-certificate" in logged[0]
    assert token not in poller.output


def test_an_expired_session_costs_a_request_and_no_token(tmp_path: Path) -> None:
    """A gateway rejects an old session cookie: the token alone is tried before it counts as rejected."""
    requested: list[tuple[str, str | None]] = []

    class Gateway(Handler):
        def do_GET(self) -> None:
            requested.append((self.path, self.headers.get("Cookie")))
            expired = len(requested) > 2 and self.headers.get("Cookie") is not None
            self.send_response(401 if expired else 200)
            self.send_header("Set-Cookie", f"sessionId={len(requested)}")
            self.end_headers()
            self.wfile.write(info_of("D5.0.62") if self.path == "/info" else b"[]")

    with serving(Gateway) as url:
        session = Session(EnvoySettings(host=url), TrustStore(tmp_path))
        session.find()
        session.envoy.authenticate(BearerToken(SecretStr("token")))
        for _ in range(3):
            assert session.envoy.fetch(METERS) == ()
        session.envoy.fetch_info()

    assert requested == [
        ("/info", None),
        ("/ivp/meters", None),
        ("/ivp/meters", "sessionId=2"),
        ("/ivp/meters", None),
        ("/ivp/meters", "sessionId=4"),
        ("/ivp/meters", None),
        ("/info", None),
    ]


def test_an_old_tls_stack_with_an_expired_certificate_is_read(tmp_path: Path) -> None:
    """RSA of 1024 bits, also for the key exchange, and expired for years: only the pinned fingerprint counts."""

    class Gateway(Handler):
        body = info_of("D7.0.88")

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "envoy")])
    issued = datetime(2015, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, issued, issued.replace(year=2020))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "gateway.pem").write_bytes(secret + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tmp_path / "gateway.pem")
    with ThreadingHTTPServer((HOST, 0), Gateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        session = Session(EnvoySettings(host=f"{HOST}:{server.server_port}"), TrustStore(tmp_path))
        identity = session.find()
        server.shutdown()

    assert identity.needs_token
    assert (tmp_path / "122012345678.sha256").read_text().splitlines()[0] == session.envoy.fingerprint


def test_a_redirect_is_not_followed_and_its_target_gets_no_token() -> None:
    """Many gateways redirect missing paths."""
    with (
        responding() as (elsewhere, credentials_elsewhere),
        responding(status=302, headers_sent=(("Location", f"{elsewhere}/ivp/meters"),)) as (url, credentials),
    ):
        envoy = Envoy()
        envoy.connect(url, None)
        with pytest.raises(EndpointMissing):
            envoy.fetch_info()
        envoy.authenticate(BearerToken(SecretStr("secret")))
        with pytest.raises(EndpointMissing):
            envoy.fetch(METERS)

    assert credentials == [None, "Bearer secret"]
    assert credentials_elsewhere == []


def test_a_gateway_with_new_firmware_is_read_as_that(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """After the gap of an update, info has the new firmware and readings continue."""
    with ExitStack() as stack:
        with simulator(tmp_path, firmware="7") as roof:
            token, port = roof.token(), int(roof.envoy_url.rpartition(":")[2])
            poller = stack.enter_context(polling(broker, tmp_path, (roof.envoy_url, token)))
            wait_until(lambda: subscriber.on("/readings/grid"), "a reading")
            before = str(subscriber.on("/info")[-1]["firmware"])
        with simulator(tmp_path, firmware="8", envoy_port=port):
            wait_until(lambda: str(subscriber.on("/info")[-1]["firmware"]) != before, "the new firmware")
            seen = len(subscriber.on("/readings/grid"))
            wait_until(lambda: len(subscriber.on("/readings/grid")) > seen, "a reading by it")
            # Once this gateway has ended as well, that is logged, too.
            log = poller.output

    assert (before[0], str(subscriber.on("/info")[-1]["firmware"])[0]) == ("7", "8")
    assert log.count("cannot be read") == 1
    assert log.count("responds again") == 1
    assert "Traceback" not in log


def test_an_old_gateway_is_read_with_the_password(broker: Server, subscriber: Subscriber, tmp_path: Path) -> None:
    """Firmware 5: HTTP and digest, no token is requested."""
    with simulator(tmp_path, firmware="5") as roof, polling(broker, tmp_path, (roof.envoy_url, "")):
        wait_until(lambda: subscriber.on("/readings/grid"), "a reading")
        wait_until(lambda: any("/inverter/" in m.topic for m in subscriber.received) or subscriber.on("x"), "inverters")
    assert not subscriber.on("/token/request")
