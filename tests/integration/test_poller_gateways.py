"""What poller promises with gateways that are slow, hang, lie about the time, or are several."""

import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
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

from services.poller.answers import METER_DETAILS
from services.poller.certificates import PinStore
from services.poller.envoy import BadResponse, EndpointMissing, Envoy, GatewayError, GatewayUnavailable, Identity
from services.poller.settings import EnvoySettings
from services.simulator.faults import parse_fault
from shared.http import BoundedSession, ExchangeFailed, exchange
from shared.mqtt import Connection, Message, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.programs import HOST, Program, simulator, wait_until

Served = list[dict[str, object]]


class Ear:
    """Somebody who hears everything."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.heard: list[Message] = []

    def on(self, ending: str, serial: str = "") -> list[dict[str, object]]:
        """Return what was heard on the topics with an ending, as JSON."""
        while (message := self._connection.receive(0.02)) is not None:
            if isinstance(message, Message):
                self._connection.acknowledge(message)
                self.heard.append(message)
        wanted = [m for m in self.heard if m.topic.endswith(ending) and serial in m.topic]
        return [json.loads(message.payload) for message in wanted if message.payload.startswith(b"{")]


@pytest.fixture
def ear(broker: Server) -> Iterator[Ear]:
    """Yield somebody who hears everything."""
    settings = MqttSettings(host=HOST, port=broker.port, client_id="ear")
    everything = [Subscription("enphase/#")]
    with Connection(settings, stop=threading.Event(), subscriptions=everything, persistent_session=False) as connection:
        assert connection.wait_until_connected(10)
        yield Ear(connection)


@contextmanager
def polling(
    broker: Server, state: Path, *gateways: tuple[str, str], interval_s: int = 1, **more: str
) -> Iterator[Program]:
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
def hanging() -> Iterator[str]:
    """Yield the address of somebody who takes connections and never says a word."""
    with socket.create_server((HOST, 0)) as listener:
        yield f"http://{HOST}:{listener.getsockname()[1]}"


def test_a_gateway_that_hangs_delays_no_other(broker: Server, ear: Ear, tmp_path: Path) -> None:
    """Of three, one takes connections and says nothing: the others' readings come, under their own serials."""
    with ExitStack() as stack:
        silent = stack.enter_context(hanging())
        roofs = [
            stack.enter_context(simulator(tmp_path / serial, serial=serial, inverters=2))
            for serial in ("122000000001", "122000000002")
        ]
        tokens = [(roof.envoy_url, roof.token()) for roof in roofs]
        stack.enter_context(polling(broker, tmp_path, tokens[0], (silent, ""), tokens[1]))

        for roof in roofs:
            wait_until(lambda roof=roof: len(ear.on("/readings/grid", roof.serial)) >= 4, f"readings of {roof.serial}")  # type: ignore[misc]
        metrics = wait_until(lambda: ear.on("/poller/metrics"), "metrics")[-1]
    assert (metrics["gateways"], metrics["gateways_online"]) == (3, 2)
    assert float(str(metrics["readings_taken"])) > 0


def test_slow_answers_do_not_delay_the_meters(broker: Server, ear: Ear, tmp_path: Path) -> None:
    """production.json takes longer than half a slot: it is asked where it fits, never beside another question."""
    with (
        simulator(tmp_path, slow_answers_s=1.1) as roof,
        polling(broker, tmp_path, (roof.envoy_url, roof.token()), interval_s=2),
    ):
        wait_until(lambda: len(ear.on("/readings/grid")) >= 6, "six readings")
        meters = roof.ledger.served(server="envoy", path="/ivp/meters/readings")
        slow = roof.ledger.served(server="envoy", path="/production.json")

    assert len(slow) >= 1
    slots = [int(float(str(answer["at"])) // 2) for answer in meters[1:]]
    assert len(set(slots)) == len(slots), "no slot is read twice"
    assert slots[-1] - slots[0] <= len(slots), "at most one is missed, on a busy machine"


def test_a_wrong_clock_is_told_and_corrected(broker: Server, ear: Ear, tmp_path: Path) -> None:
    """The gateway's clock is set wrong while it is polled, and right again: the readings' times stay true."""
    with simulator(tmp_path) as roof, polling(broker, tmp_path, (roof.envoy_url, roof.token())):
        wait_until(lambda: ear.on("/readings/grid"), "a reading")
        assert "clock_offset_s" not in ear.on("/info")[-1]

        roof.faults.add(parse_fault("wrong-clock:offset_s=-7200"))
        told = wait_until(lambda: [i for i in ear.on("/info") if "clock_offset_s" in i], "the offset in info")
        before = len(ear.on("/readings/grid"))
        wait_until(lambda: len(ear.on("/readings/grid")) > before + 2, "readings by the wrong clock")
        roof.faults.remove()
        wait_until(lambda: "clock_offset_s" not in ear.on("/info")[-1], "a right clock")
        before = len(ear.on("/readings/grid"))
        wait_until(lambda: len(ear.on("/readings/grid")) > before + 2, "readings by the right clock")

    assert abs(int(str(told[0]["clock_offset_s"])) + 7200) <= 5
    now = time.time()
    times = [int(str(reading["timestamp"])) for reading in ear.on("/readings/grid")]
    assert all(now - 120 < timestamp <= now + 5 for timestamp in times)
    assert not ear.on("/history/grid") or len(ear.on("/history/grid")) <= 2


def test_a_gateway_that_says_how_long_to_wait_is_left_alone_so_long(broker: Server, ear: Ear, tmp_path: Path) -> None:
    """503 with Retry-After: nothing is asked in between."""
    with simulator(tmp_path) as roof, polling(broker, tmp_path, (roof.envoy_url, roof.token())):
        wait_until(lambda: ear.on("/readings/grid"), "a reading")
        roof.faults.add(parse_fault("503:server=envoy:retry_after_s=4:count=1"))
        busy = wait_until(lambda: [a for a in roof.ledger.served(server="envoy") if a["status"] == 503], "the refusal")[
            0
        ]
        later = wait_until(
            lambda: [a for a in roof.ledger.served(server="envoy") if float(str(a["at"])) > float(str(busy["at"]))],
            "the next question",
        )[0]

    assert float(str(later["at"])) - float(str(busy["at"])) >= 3.9


def test_a_certificate_that_changes_while_it_is_polled_is_told_with_both_and_gets_no_token(
    broker: Server, ear: Ear, tmp_path: Path
) -> None:
    """The error stands in the log once, with what to do; whoever answers there now hears /info and nothing else."""
    with ExitStack() as stack:
        with simulator(tmp_path) as roof:
            token, port = roof.token(), int(roof.envoy_url.rpartition(":")[2])
            poller = stack.enter_context(polling(broker, tmp_path, (roof.envoy_url, token)))
            wait_until(lambda: ear.on("/readings/grid"), "a reading")
        for certificate in (tmp_path / "simulator").glob("gateway-*.pem"):
            certificate.unlink()
        with simulator(tmp_path, envoy_port=port) as impostor:
            wait_until(lambda: "it was told nothing" in poller.output, "the error")
            wait_until(lambda: len(impostor.ledger.served(server="envoy")) >= 3, "three tries")
            asked = {answer["path"] for answer in impostor.ledger.served(server="envoy")}

    told = [line for line in poller.output.splitlines() if "it was told nothing" in line]
    pinned = next((tmp_path / "poller").glob("*.sha256"))
    assert asked == {"/info"}
    assert len(told) == 1
    assert pinned.read_text().strip() in told[0]
    assert str(pinned) in told[0]
    assert token not in poller.output


def test_headers_that_drip_are_cut_at_the_deadline() -> None:
    """Each byte comes in time for requests, and the whole never: the exchange ends all the same."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server((HOST, 0)) as listener:
        server = threading.Thread(target=drip, args=(listener,), daemon=True)
        server.start()
        session = BoundedSession()
        with pytest.raises(ExchangeFailed, match=r"within 0\.3 s"):
            exchange(session, "GET", f"http://{HOST}:{listener.getsockname()[1]}/", deadline_s=0.3)
        server.join(5)
        assert not server.is_alive(), "the connection was closed"
        stop.set()


def test_a_session_that_is_over_costs_a_question_and_no_token(tmp_path: Path) -> None:
    """A gateway refuses whoever shows its old cookie: the token alone is tried before it is given up."""
    asked: list[tuple[str, str | None]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Cookie")))
            over = len(asked) > 2 and self.headers.get("Cookie") is not None
            self.send_response(401 if over else 200)
            self.send_header("Set-Cookie", f"sessionId={len(asked)}")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        envoy = Envoy(EnvoySettings(host=f"http://{HOST}:{server.server_port}"), PinStore(tmp_path))
        with pytest.raises(BadResponse):
            envoy.find()
        envoy.show_token(SecretStr("token"))
        for _ in range(3):
            assert envoy.get("/ivp/meters", METER_DETAILS) == ()
        server.shutdown()

    assert asked[1:] == [
        ("/ivp/meters", None),
        ("/ivp/meters", "sessionId=2"),
        ("/ivp/meters", None),
        ("/ivp/meters", "sessionId=4"),
        ("/ivp/meters", None),
    ]


def test_an_old_tls_stack_with_an_expired_certificate_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    """RSA of 1024 bits, used for the key exchange too, over since years: the pin is what counts."""

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            software = "<software>D7.0.88</software>"
            self.wfile.write(f"<envoy_info><device><sn>122012345678</sn>{software}</device></envoy_info>".encode())

        def log_message(self, *_: object) -> None:
            pass

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "envoy")])
    born = datetime(2015, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, born, born.replace(year=2020))
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
        envoy = Envoy(EnvoySettings(host=f"{HOST}:{server.server_port}"), PinStore(tmp_path))
        identity = envoy.find()
        server.shutdown()

    assert identity.needs_token
    assert (tmp_path / "122012345678.sha256").read_text().strip() == envoy.fingerprint


class Serving(BaseHTTPRequestHandler):
    """Answers everything alike, and remembers what it was shown."""

    status, headers_sent, body = 200, (("X-None", "-"),), b""
    shown: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        """Answer."""
        self.shown.append(self.headers.get("Authorization"))
        self.send_response(self.status)
        for name, value in self.headers_sent:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(**answer: object) -> Iterator[tuple[str, list[str | None]]]:
    """Yield the address of somebody who answers everything alike, and what he was shown."""
    shown: list[str | None] = []
    with ThreadingHTTPServer((HOST, 0), type("Answering", (Serving,), {"shown": shown, **answer})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}", shown
        server.shutdown()


def test_an_answer_that_unpacks_to_hundreds_of_megabytes_is_refused_in_little_memory() -> None:
    """A compressed answer counts with what it unpacks to, and is not unpacked further than the limit."""
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)
    session = BoundedSession()
    with serving(body=bomb, headers_sent=(("Content-Encoding", "gzip"),)) as (url, _):
        tracemalloc.start()
        with pytest.raises(ExchangeFailed, match="more than 2000000 bytes"):
            exchange(session, "GET", url, deadline_s=10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert len(bomb) < 2_000_000
    assert most < 20_000_000


def test_a_redirect_is_not_followed_and_its_target_sees_no_token(tmp_path: Path) -> None:
    """Missing paths lead elsewhere on many gateways; the token stays."""
    with (
        serving() as (elsewhere, shown_elsewhere),
        serving(status=302, headers_sent=(("Location", f"{elsewhere}/ivp/meters"),)) as (url, shown),
    ):
        envoy = Envoy(EnvoySettings(host=url), PinStore(tmp_path))
        with pytest.raises(EndpointMissing):
            envoy.find()
        envoy.show_token(SecretStr("secret"))
        with pytest.raises(EndpointMissing):
            envoy.get("/ivp/meters", METER_DETAILS)

    assert shown == [None, "Bearer secret"]
    assert shown_elsewhere == []


def test_a_gateway_that_comes_back_with_other_firmware_is_read_as_that(
    broker: Server, ear: Ear, tmp_path: Path
) -> None:
    """An update is a gap: info tells the new firmware, and what it has to say more is published."""
    with ExitStack() as stack:
        with simulator(tmp_path, firmware="7") as roof:
            token, port = roof.token(), int(roof.envoy_url.rpartition(":")[2])
            poller = stack.enter_context(polling(broker, tmp_path, (roof.envoy_url, token)))
            wait_until(lambda: ear.on("/readings/grid"), "a reading")
            before = str(ear.on("/info")[-1]["firmware"])
        with simulator(tmp_path, firmware="8", envoy_port=port):
            wait_until(lambda: str(ear.on("/info")[-1]["firmware"]) != before, "the new firmware")
            seen = len(ear.on("/readings/grid"))
            wait_until(lambda: len(ear.on("/readings/grid")) > seen, "a reading by it")
            # Once this gateway has ended as well, that is told, too.
            told = poller.output

    assert (before[0], str(ear.on("/info")[-1]["firmware"])[0]) == ("7", "8")
    assert told.count("cannot be read") == 1
    assert told.count("answers again") == 1
    assert "Traceback" not in told


def test_a_stranger_on_the_https_port_does_not_hide_the_gateway_behind_http(tmp_path: Path) -> None:
    """Both ports are tried whatever the first one answers, and where both fail the error tells of both."""

    class TwoPorts(Envoy):
        answers: ClassVar[dict[str, GatewayError]] = {"https://roof": EndpointMissing("/info: the gateway answers 404")}

        def _find_at(self, base_url: str) -> Identity:
            if base_url in self.answers:
                raise self.answers[base_url]
            return Identity("122012345678", None, "5.0.62", metered_hardware=False)

    envoy = TwoPorts(EnvoySettings(host="roof"), PinStore(tmp_path))
    assert envoy.find().firmware == "5.0.62"
    envoy.answers["http://roof"] = GatewayUnavailable("http://roof/info: connection refused", 30)

    with pytest.raises(GatewayUnavailable) as told:
        envoy.find()

    assert str(told.value) == "https://roof/info: the gateway answers 404; http://roof/info: connection refused"
    assert told.value.retry_after_s == 30


def test_an_old_gateway_is_read_with_the_password(broker: Server, ear: Ear, tmp_path: Path) -> None:
    """Firmware 5: HTTP and digest, no token asked for."""
    with simulator(tmp_path, firmware="5") as roof, polling(broker, tmp_path, (roof.envoy_url, "")):
        wait_until(lambda: ear.on("/readings/grid"), "a reading")
        wait_until(lambda: any("/inverter/" in m.topic for m in ear.heard) or ear.on("x"), "inverters")
    assert not ear.on("/token/request")
