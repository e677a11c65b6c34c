"""Finding a gateway and authenticating: the states, and that a credential goes only to a verified connection."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.poller.certificates import Certificate
from services.poller.endpoints import METERS
from services.poller.envoy import Envoy
from services.poller.errors import (
    BadResponse,
    EndpointMissing,
    GatewayError,
    GatewayUnavailable,
    GatewayUntrusted,
    TokenRejected,
)
from services.poller.identity import Identity, Info
from services.poller.session import Session, State
from services.poller.settings import EnvoySettings
from services.poller.trust import TrustStore
from services.simulator.keys import load_or_create_tls
from shared.certificates import create_key
from tests.gateway_certificates import Key, write_certificate
from tests.programs import HOST
from tests.tokens import broker_token, unsigned_token

SERIAL, OTHER = "122012345678", "122000000099"
NEW = Identity(SERIAL, None, "8.3.5169", metered_hardware=True)
OLD = Identity(SERIAL, None, "5.0.62", metered_hardware=True)
NOW = time.time()


def settings(**fields: Any) -> EnvoySettings:
    """Return the settings of a gateway."""
    return EnvoySettings.model_validate({"host": "roof"} | fields)


class Impostor:
    """A server that notes every request with all of its headers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.responses: dict[str, bytes] = {"/ivp/meters": b"[]"}
        self.host = ""
        self.port = 0

    @property
    def paths(self) -> list[str]:
        """What was requested."""
        return [path for path, _headers in self.requests]

    @property
    def credentials(self) -> list[str]:
        """Every header that can hold a credential."""
        return [
            f"{name}: {value}"
            for _path, headers in self.requests
            for name, value in headers.items()
            if name.lower() in ("authorization", "cookie")
        ]


@contextmanager
def serving(
    certificate: Path | None, *, serial: str = SERIAL, software: str = "D8.3.5169", port: int = 0
) -> Iterator[Impostor]:
    """Run a server, with TLS if it is given a certificate's file."""
    impostor = Impostor()
    device = f"<sn>{serial}</sn><software>{software}</software>"
    impostor.responses["/info"] = f"<envoy_info><device>{device}</device></envoy_info>".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            impostor.requests.append((self.path, dict(self.headers)))
            body = impostor.responses.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Set-Cookie", "sessionId=secret")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    connections: list[socket.socket] = []

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the original
            connections.append(request)
            super().process_request(request, client_address)

        def handle_error(self, *_: object) -> None:
            """Log nothing of a client that hangs up in the handshake."""

    with Server((HOST, port), Handler) as server:
        if certificate is not None:
            server.socket = load_or_create_tls(certificate, serial).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        impostor.port = server.server_port
        impostor.host = f"{HOST}:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield impostor
        finally:
            server.shutdown()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that names the file of a certificate, which is made when it is used."""
    return lambda name: tmp_path / f"{name}.pem"


def test_the_certificate_of_the_first_contact_is_pinned_and_the_token_sent_to_it_alone(
    certificates: Callable[[str], Path], tmp_path: Path
) -> None:
    """/info without any credential, everything else with the token."""
    text = unsigned_token(SERIAL)
    with serving(certificates("gateway")) as gateway:
        session = Session(settings(host=gateway.host, token=text), TrustStore(tmp_path))
        identity = session.find()
        assert (identity.serial, session.state, gateway.credentials) == (SERIAL, State.FOUND, [])
        credential = session.authenticate()
        session.envoy.fetch(METERS)
        session.envoy.fetch_info()

    assert credential is not None
    assert (credential.name, session.state) == ("ENVOY_TOKEN", State.AUTHENTICATED)
    assert (tmp_path / f"{SERIAL}.sha256").read_text().splitlines()[0] == session.envoy.fingerprint
    assert gateway.paths == ["/info", "/ivp/meters", "/info"]
    assert gateway.credentials == [f"Authorization: Bearer {text}"]


def test_an_impostor_in_place_of_a_running_gateway_gets_no_credential(
    certificates: Callable[[str], Path], tmp_path: Path
) -> None:
    """Another certificate at the same address, in the middle of polling: token and session cookie stay here."""
    with serving(certificates("gateway")) as gateway:
        session = Session(settings(host=gateway.host, token=unsigned_token(SERIAL)), TrustStore(tmp_path))
        session.find()
        session.authenticate()
        session.envoy.fetch(METERS)
    with serving(certificates("impostor"), port=gateway.port) as impostor:
        with pytest.raises(GatewayUnavailable):
            session.envoy.fetch(METERS)
        session.lose()
        with pytest.raises(GatewayUntrusted, match="no credential was sent"):
            session.find()
        assert session.state is State.SEARCHING
        assert session.authenticate() is None
        with pytest.raises(RuntimeError, match="before a credential was attached"):
            session.envoy.fetch(METERS)

    assert impostor.paths == ["/info"]
    assert impostor.credentials == []


def test_another_certificate_than_the_given_one_gets_no_credential(
    certificates: Callable[[str], Path], tmp_path: Path
) -> None:
    """ENVOY_CERT_FINGERPRINT counts more than what was pinned, and nothing is pinned."""
    with serving(certificates("impostor")) as impostor:
        session = Session(
            settings(host=impostor.host, token=unsigned_token(SERIAL), cert_fingerprint="0" * 64), TrustStore(tmp_path)
        )
        with pytest.raises(GatewayUntrusted, match="set ENVOY_CERT_FINGERPRINT"):
            session.find()

    assert impostor.credentials == []
    assert list(tmp_path.glob("*.sha256")) == []


def test_a_token_is_not_sent_to_a_gateway_that_it_is_not_for(
    certificates: Callable[[str], Path], tmp_path: Path
) -> None:
    """At first contact an impostor is a new gateway to pin, and nothing more."""
    with serving(certificates("impostor"), serial=OTHER) as impostor:
        session = Session(settings(host=impostor.host, token=unsigned_token(SERIAL)), TrustStore(tmp_path))
        session.find()
        session.offer_token(broker_token(SERIAL))

        assert session.authenticate() is None
        assert "it is for another gateway" in session.missing_token_hint()

    assert impostor.paths == ["/info"]
    assert impostor.credentials == []


@pytest.mark.parametrize("software", ["D8.3.5169", "D5.0.62"])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_pinned_gateway_is_never_read_without_tls(software: str, scheme: str, tmp_path: Path) -> None:
    """Neither a token nor the password's digest: older firmware on port 80 may be an impostor."""
    TrustStore(tmp_path).pin(SERIAL, Certificate("0" * 64), "it is the first")
    with serving(None, software=software) as impostor:
        session = Session(settings(host=scheme + impostor.host, token=unsigned_token(SERIAL)), TrustStore(tmp_path))
        with pytest.raises(GatewayUntrusted, match="although the certificate of gateway"):
            session.find()

    assert set(impostor.paths) == {"/info"}
    assert impostor.credentials == []


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_with_a_given_fingerprint_plain_http_is_not_even_tried(scheme: str, tmp_path: Path) -> None:
    """Only HTTPS can present a certificate."""
    with serving(None) as impostor:
        session = Session(settings(host=scheme + impostor.host, cert_fingerprint="0" * 64), TrustStore(tmp_path))
        with pytest.raises(GatewayUnavailable):
            session.find()

    assert impostor.paths == []


def test_a_token_goes_over_plain_http_only_where_envoy_host_begins_with_http(tmp_path: Path) -> None:
    """Without a scheme, the search ends with what to set; with http://, the owner has decided."""
    text = unsigned_token(SERIAL)
    with serving(None) as gateway:
        with pytest.raises(GatewayUnavailable, match=f"set ENVOY_HOST=http://{gateway.host}"):
            Session(settings(host=gateway.host, token=text), TrustStore(tmp_path)).find()
        assert gateway.credentials == []
        session = Session(settings(host=f"http://{gateway.host}", token=text), TrustStore(tmp_path))
        session.find()
        session.authenticate()
        session.envoy.fetch(METERS)

    assert gateway.credentials == [f"Authorization: Bearer {text}"]


def test_a_pin_that_cannot_be_read_ends_the_search(certificates: Callable[[str], Path], tmp_path: Path) -> None:
    """It is reported with its file, and not replaced."""
    pin = tmp_path / f"{SERIAL}.sha256"
    pin.write_text("half a finger")
    with serving(certificates("gateway")) as gateway:
        session = Session(settings(host=gateway.host, token=unsigned_token(SERIAL)), TrustStore(tmp_path))
        with pytest.raises(GatewayUntrusted, match=str(pin)):
            session.find()

    assert pin.read_text() == "half a finger"
    assert gateway.credentials == []


@contextmanager
def known_gateway(folder: Path, **fields: Any) -> Iterator[tuple[Callable[..., Session], Impostor, Key]]:
    """Find a gateway for the first time; yield what makes new sessions for its address, the gateway, and its key."""
    key = create_key()
    write_certificate(folder / "gateway.pem", key)
    with serving(folder / "gateway.pem") as gateway:

        def new_session(**changed: Any) -> Session:
            given = {"host": gateway.host, "token": unsigned_token(SERIAL), "password": "secret"} | fields | changed
            return Session(settings(**given), TrustStore(folder))

        new_session().find()
        yield new_session, gateway, key


@pytest.mark.parametrize("software", ["D8.3.5169", "D5.0.62"])
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain http"])
@pytest.mark.parametrize("scheme", ["", "http://", "https://"])
def test_another_serial_number_at_a_known_address_is_an_error_and_not_a_new_gateway(
    scheme: str, software: str, tmp_path: Path, *, tls: bool
) -> None:
    """Nothing is pinned or sent, neither a token nor a digest, also after a restart; the error has what to do."""
    with known_gateway(tmp_path) as (new_session, gateway, _key):
        pass
    files = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".pem"}
    certificate = tmp_path / "impostor.pem" if tls else None
    with serving(certificate, serial=OTHER, software=software, port=gateway.port) as impostor:
        session = new_session(host=scheme + gateway.host, token=unsigned_token(OTHER))
        if tls == (scheme != "http://"):
            with pytest.raises(GatewayUntrusted, match=f"was gateway {SERIAL} before.* set ENVOY_SERIAL={OTHER}"):
                session.find()
        else:
            with pytest.raises(GatewayUnavailable):
                session.find()
        session.offer_token(broker_token(OTHER))
        assert session.authenticate() is None

    assert set(impostor.paths) <= {"/info"}
    assert impostor.credentials == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".pem"} == files


def test_a_replaced_gateway_is_accepted_with_envoy_serial(tmp_path: Path) -> None:
    """It is remembered in place of the former one, so that ENVOY_SERIAL can be removed again."""
    with known_gateway(tmp_path) as (new_session, gateway, _key):
        pass
    with serving(tmp_path / "new.pem", serial=OTHER, port=gateway.port) as replacement:
        for named in (OTHER, None):
            session = new_session(serial=named, token=unsigned_token(OTHER))
            assert session.find().serial == OTHER
            assert session.authenticate() is not None
            session.envoy.fetch(METERS)

    assert len(replacement.credentials) == 2


def test_where_a_gateway_with_tls_was_its_replacement_is_not_read_without(tmp_path: Path) -> None:
    """ENVOY_SERIAL accepts another gateway, not one that an impostor simulates on port 80."""
    with known_gateway(tmp_path) as (new_session, gateway, _key):
        pass
    with serving(None, serial=OTHER, software="D5.0.62", port=gateway.port) as impostor:
        with pytest.raises(GatewayUntrusted, match=f"although the certificate of gateway {SERIAL} is pinned"):
            new_session(serial=OTHER).find()
        assert impostor.credentials == []
        session = new_session(host=f"http://{gateway.host}", serial=OTHER)
        assert session.find().serial == OTHER


def test_a_gateway_that_is_updated_to_tls_is_never_read_without_from_then_on(tmp_path: Path) -> None:
    """Firmware 5 on plain HTTP is read; once it was seen with TLS, it may be an impostor."""
    with serving(None, software="D5.0.62") as gateway:
        session = Session(settings(host=gateway.host), TrustStore(tmp_path))
        session.find()
        assert session.authenticate() is not None
    with serving(tmp_path / "updated.pem", port=gateway.port):
        Session(settings(host=gateway.host), TrustStore(tmp_path)).find()
    with serving(None, software="D5.0.62", port=gateway.port) as impostor:
        session = Session(settings(host=gateway.host), TrustStore(tmp_path))
        with pytest.raises(GatewayUntrusted, match="although the certificate"):
            session.find()

    assert impostor.credentials == []


def test_with_a_given_fingerprint_a_gateway_is_not_read_without_tls_once_it_is_removed(tmp_path: Path) -> None:
    """A given certificate is pinned, too."""
    fingerprint = write_certificate(tmp_path / "gateway.pem")
    with serving(tmp_path / "gateway.pem") as gateway:
        given = settings(host=gateway.host, cert_fingerprint=fingerprint)
        Session(given, TrustStore(tmp_path)).find()
    with serving(None, software="D5.0.62", port=gateway.port) as impostor:
        session = Session(settings(host=gateway.host), TrustStore(tmp_path))
        with pytest.raises(GatewayUntrusted):
            session.find()

    assert impostor.credentials == []


@pytest.mark.parametrize("content", ["", "half a serial number"])
def test_an_unreadable_address_ends_the_search_unless_envoy_serial_is_set(content: str, tmp_path: Path) -> None:
    """It is reported with its file, and replaced only where the owner names the gateway."""
    with known_gateway(tmp_path) as (new_session, gateway, _key):
        file = TrustStore(tmp_path).address_path(gateway.host)
        file.write_text(content)
        with pytest.raises(GatewayUntrusted, match=f"{file} .* set ENVOY_SERIAL"):
            new_session().find()
        assert file.read_text() == content
        new_session(serial=SERIAL).find()
        assert file.read_text().strip() == SERIAL
        new_session().find()

    assert gateway.credentials == []


def test_an_address_that_cannot_be_remembered_ends_the_search(tmp_path: Path) -> None:
    """What could be another gateway tomorrow gets no credential today."""
    (tmp_path / "state").touch()
    with serving(None, software="D5.0.62") as gateway:
        session = Session(settings(host=gateway.host), TrustStore(tmp_path / "state"))
        with pytest.raises(GatewayUntrusted, match="cannot"):
            session.find()
        assert session.authenticate() is None

    assert gateway.credentials == []


def test_a_renewed_certificate_with_the_same_key_is_accepted_and_pinned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The handshake proves that the server has the key, and no impostor has it."""
    with known_gateway(tmp_path) as (new_session, gateway, key):
        before = TrustStore(tmp_path).pinned(SERIAL)
    renewed = write_certificate(tmp_path / "gateway.pem", key)
    with serving(tmp_path / "gateway.pem", port=gateway.port) as gateway:
        for _ in range(2):
            session = new_session()
            session.find()
            session.authenticate()
            session.envoy.fetch(METERS)

    after = TrustStore(tmp_path).pinned(SERIAL)
    assert before is not None
    assert after is not None
    assert (after.fingerprint, after.key_fingerprint) == (renewed, before.key_fingerprint)
    assert before.fingerprint != renewed
    assert len(gateway.credentials) == 2
    assert [f"same key as {before.fingerprint}" in message for message in caplog.messages].count(True) == 1


def test_a_renewed_certificate_with_another_key_gets_no_credential_until_it_is_accepted(tmp_path: Path) -> None:
    """The error names the command with the new fingerprint, and the command trusts exactly that one."""
    with known_gateway(tmp_path) as (new_session, gateway, _key):
        before = TrustStore(tmp_path).pinned(SERIAL)
    renewed = write_certificate(tmp_path / "renewed.pem")
    with serving(tmp_path / "renewed.pem", port=gateway.port) as gateway:
        with pytest.raises(GatewayUntrusted, match=f"--accept-certificate {renewed}"):
            new_session().find()
        with pytest.raises(GatewayUntrusted, match=f"{renewed} instead of {'ab' * 32}"):
            new_session().accept_certificate("ab" * 32)
        assert TrustStore(tmp_path).pinned(SERIAL) == before
        assert gateway.credentials == []
        new_session().accept_certificate(renewed)
        session = new_session()
        session.find()
        session.authenticate()
        session.envoy.fetch(METERS)

    assert len(gateway.credentials) == 1


def test_a_pin_of_an_earlier_version_gets_its_key_from_the_pinned_certificate_only(tmp_path: Path) -> None:
    """From then on a renewal with the same key is accepted; before, there is no evidence."""
    with known_gateway(tmp_path) as (new_session, gateway, key):
        pin = TrustStore(tmp_path).pin_path(SERIAL)
        complete = pin.read_text()
        pin.write_text(complete.splitlines()[0])
        new_session().find()
        assert pin.read_text() == complete
        pin.write_text(complete.splitlines()[0])
    write_certificate(tmp_path / "gateway.pem", key)
    with serving(tmp_path / "gateway.pem", port=gateway.port), pytest.raises(GatewayUntrusted):
        new_session().find()

    assert pin.read_text() == complete.splitlines()[0]


def test_a_given_fingerprint_accepts_no_other_certificate_with_the_same_key(tmp_path: Path) -> None:
    """You named one certificate, not a key; the command reports what to set instead."""
    key = create_key()
    given = write_certificate(tmp_path / "gateway.pem", key)
    with serving(tmp_path / "gateway.pem") as gateway:
        exact = settings(host=gateway.host, cert_fingerprint=given)
        Session(exact, TrustStore(tmp_path)).find()
    renewed = write_certificate(tmp_path / "gateway.pem", key)
    with serving(tmp_path / "gateway.pem", port=gateway.port) as gateway:
        with pytest.raises(GatewayUntrusted, match="set ENVOY_CERT_FINGERPRINT to it"):
            Session(exact, TrustStore(tmp_path)).find()
        with pytest.raises(GatewayUntrusted, match=f"set it to {renewed}"):
            Session(exact, TrustStore(tmp_path)).accept_certificate(renewed)

    assert gateway.credentials == []


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_certificate_is_accepted_over_tls_only(scheme: str, tmp_path: Path) -> None:
    """A server without one is not even sent a request."""
    with serving(None, software="D5.0.62") as impostor:
        session = Session(settings(host=scheme + impostor.host), TrustStore(tmp_path))
        with pytest.raises(GatewayUnavailable):
            session.accept_certificate("ab" * 32)

    assert impostor.paths == []


def test_an_unreadable_pin_is_replaced_by_the_certificate_that_you_accept(tmp_path: Path) -> None:
    """As the error proposes; nothing else replaces it."""
    with known_gateway(tmp_path) as (new_session, _gateway, _key):
        pin = TrustStore(tmp_path).pin_path(SERIAL)
        complete = pin.read_text()
        pin.write_text("half a finger")
        with pytest.raises(GatewayUntrusted, match="--accept-certificate"):
            new_session().find()
        new_session().accept_certificate(complete.splitlines()[0])

    assert pin.read_text() == complete


class ScriptedEnvoy(Envoy):
    """An Envoy with a given response or error at each address."""

    def __init__(self, responses: dict[str, GatewayError | Identity]) -> None:
        super().__init__()
        self.responses = responses

    def connect(self, base_url: str, fingerprint: str | None) -> None:
        """Take any address."""
        super().connect(base_url, fingerprint)

    def fetch_info(self) -> Info:
        """Respond."""
        response = self.responses[self.base_url]
        if isinstance(response, GatewayError):
            raise response
        return Info(response, 0.0, None, 0)


def scripted_session(
    responses: dict[str, GatewayError | Identity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    **fields: Any,
) -> Session:
    """Return a session whose gateway presents a certificate of zeros over HTTPS."""
    monkeypatch.setattr("services.poller.session.fetch_certificate", lambda *_: Certificate("0" * 64))
    return Session(settings(**fields), TrustStore(tmp_path), envoy=ScriptedEnvoy(responses))


def test_another_server_on_the_https_port_does_not_hide_a_gateway_on_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are tried, and where both fail the error has both."""
    responses: dict[str, GatewayError | Identity] = {"https://roof": EndpointMissing("/info: 404"), "http://roof": OLD}
    session = scripted_session(responses, tmp_path, monkeypatch)
    assert session.find().firmware == "5.0.62"
    responses["http://roof"] = GatewayUnavailable("http://roof/info: connection refused", 30)

    with pytest.raises(GatewayUnavailable) as error:
        session.find()

    assert str(error.value) == "https://roof/info: 404; http://roof/info: connection refused"
    assert error.value.retry_after_s == 30
    assert session.state is State.SEARCHING


def test_another_gateway_than_envoy_serial_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is pinned for it."""
    session = scripted_session({"https://roof": NEW}, tmp_path, monkeypatch, host="https://roof", serial=OTHER)

    with pytest.raises(BadResponse, match=f"ENVOY_SERIAL is {OTHER}"):
        session.find()

    assert list(tmp_path.iterdir()) == []


def test_a_rejected_info_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no credential, so that no other would help."""
    session = scripted_session({"https://roof": TokenRejected("/info: 401")}, tmp_path, monkeypatch)

    with pytest.raises(TokenRejected):
        session.find()


def state_of(session: Session) -> State:
    """Return the state of a session; as a call, so that mypy does not remember the one before."""
    return session.state


def test_states_follow_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From searching to authenticated, back with a new token, a rejection, and an outage."""
    session = scripted_session({"https://roof": NEW}, tmp_path, monkeypatch)
    assert session.authenticate() is None
    session.find()
    assert (session.authenticate(), state_of(session)) == (None, State.FOUND)

    session.offer_token(broker_token(SERIAL, signature="Zmlyc3Q"))
    assert session.authenticate() is not None
    assert state_of(session) is State.AUTHENTICATED
    session.offer_token(broker_token(SERIAL, signature="Zmlyc3Q"))
    assert state_of(session) is State.AUTHENTICATED
    session.offer_token(broker_token(SERIAL, signature="c2Vjb25k"))
    assert state_of(session) is State.FOUND
    assert session.authenticate() is not None

    session.reject()
    assert (state_of(session), session.authenticate()) == (State.FOUND, None)
    session.lose()
    assert state_of(session) is State.SEARCHING
    session.offer_token(broker_token(SERIAL, signature="dGhpcmQ"))
    assert state_of(session) is State.SEARCHING
    session.find()
    assert session.authenticate() is not None


def test_a_new_connection_has_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be attached again after each search."""
    session = scripted_session({"https://roof": NEW}, tmp_path, monkeypatch, token=unsigned_token(SERIAL))
    session.find()
    session.authenticate()

    session.find()

    with pytest.raises(RuntimeError, match="before a credential was attached"):
        session.envoy.fetch(METERS)
