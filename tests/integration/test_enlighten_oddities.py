"""Responses that Enphase has sent to someone, or may send one day, as raw bytes from a real socket."""

import gzip
import json
import resource
import socket
import socketserver
import threading
import time
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from services.simulator.simulator import Simulator
from services.token_broker import enlighten as enlighten_module
from services.token_broker.account import Account
from services.token_broker.enlighten import (
    AccountBlocked,
    CloudUnreachable,
    CredentialsRejected,
    Enlighten,
    EnlightenError,
    LoginRejected,
    MfaRequired,
    Throttled,
    TokenRefused,
    TooManySessions,
    UnexpectedLoginResponse,
    UnexpectedResponse,
)
from services.token_broker.logins import LoginRecord
from services.token_broker.supply import TokenSupply
from services.token_broker.token_cache import TokenCache
from tests.programs import HOST

SERIAL = "122012345678"
KEY = ec.generate_private_key(ec.SECP256R1())
HOUR_S, DAY_S = 3600, 86_400

Response = bytes | Callable[[socket.socket], None]


def response(status: str, body: bytes | str | dict[str, object] = b"", *headers: str) -> bytes:
    """Return the bytes of a response; a dict is sent as JSON."""
    text = json.dumps(body) if isinstance(body, dict) else body
    content = text.encode() if isinstance(text, str) else text
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def token(now: float, life_s: float = 365 * DAY_S, age_s: float = 0, **claims: object) -> str:
    """Return a token as Enphase signs them; a claim that is None is left out."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": int(now - age_s), "exp": int(now + life_s)}
    return jwt.encode({name: claim for name, claim in (usual | claims).items() if claim is not None}, KEY, "ES256")


PAGE = "<!DOCTYPE html><html><body>Please wait, the queue is full</body></html>"
SESSION_ID = "0123456789abcdef0123456789abcdef"
SESSION = response("200 OK", {"message": "success", "session_id": SESSION_ID, "manager_token": "eyJhbGciOiJFUzI1NiJ9"})
SECRETS = ("owner@example.com", "owner%40", "sunshine", SESSION_ID, "eyJ")


class OddEnlighten(socketserver.ThreadingTCPServer):
    """A server that responds to log-ins and token requests with given bytes, and keeps the requests."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Exchange)
        self.responses: dict[str, Response] = {"/login": SESSION}
        self.requests: list[tuple[str, bytes]] = []

    @property
    def account(self) -> Enlighten:
        """An account at this server."""
        return self.account_of("owner@example.com", "sunshine")

    def account_of(self, email: str, password: str) -> Enlighten:
        """Return an account at this server."""
        url = f"http://{HOST}:{self.server_address[1]}"
        return Enlighten(f"{url}/login", f"{url}/tokens", email, SecretStr(password), pause=lambda _s: None)

    def supply(self, state: Path) -> TokenSupply:
        """Return the supply of a token_broker that starts now."""
        enlighten = self.account
        logins = LoginRecord(state / "logins.json", enlighten.email, enlighten.password)
        return TokenSupply(Account(enlighten, logins), TokenCache(state / "tokens"))

    def count(self, path: str) -> int:
        """Return how many requests came for a path."""
        return sum(requested == path for requested, _body in self.requests)


class _Exchange(socketserver.StreamRequestHandler):
    server: OddEnlighten

    def handle(self) -> None:
        path = self.rfile.readline().split(b" ")[1].decode()
        length = 0
        while (line := self.rfile.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.server.requests.append((path, self.rfile.read(length)))
        response = self.server.responses[path]
        with suppress(OSError):
            if isinstance(response, bytes):
                self.wfile.write(response)
            else:
                response(self.connection)


@pytest.fixture
def odd() -> Iterator[OddEnlighten]:
    """Yield a running OddEnlighten."""
    with OddEnlighten() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def full_traceback(error: BaseException) -> str:
    """Return the traceback of an error with all of its causes and contexts, including suppressed ones."""
    text = "".join(traceback.format_exception(error))
    for earlier in (error.__cause__, error.__context__):
        text += full_traceback(earlier) if earlier else ""
    return text


def reset(connection: socket.socket) -> None:
    """Reset a connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def drip(head: bytes) -> Callable[[socket.socket], None]:
    """Return a response that begins with some bytes and continues with one every 50 ms for ever."""

    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"a")
            time.sleep(0.05)

    return send


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        (response("401 Unauthorized", {"message": "Invalid"}), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (response("401 Unauthorized"), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (response("401 Unauthorized", PAGE), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (response("200 OK", {"message": "Invalid email or password"}), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (response("200 OK", {"success": True, "isBlocked": False}), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"requires_mfa": True}), MfaRequired, "ENVOY_TOKEN"),
        (response("401 Unauthorized", {"requires_mfa": True}), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"success": False, "isBlocked": True}), AccountBlocked, "unblock"),
        (response("403 Forbidden", {"message": "Invalid", "isBlocked": True}), AccountBlocked, "unblock"),
        (response("200 OK", {"message": "Too many active sessions"}), TooManySessions, "log out"),
        (response("403 Forbidden", {"message": "Too many active sessions"}), TooManySessions, "log out"),
        (response("429 Too Many Requests", {"message": "Too many requests"}), Throttled, "too many requests"),
        (response("406 Not Acceptable", PAGE), Throttled, "too many requests"),
        (response("200 OK", {"message": "success"}), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"message": "success"}, "Set-Cookie: _enlighten_4_session=1"), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"message": "success", "session_id": ""}), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"message": "success", "session_id": None}), MfaRequired, "ENVOY_TOKEN"),
        (response("200 OK", {"session_id": 17}), UnexpectedLoginResponse, "without a session"),
        (response("200 OK", {}), UnexpectedLoginResponse, "without a session"),
        (response("422 Unprocessable", {"errors": ["email"]}), UnexpectedLoginResponse, "status 422"),
        (response("200 OK", PAGE), CloudUnreachable, "page"),
        (response("200 OK"), CloudUnreachable, "page"),
        (response("200 OK", "[]"), CloudUnreachable, "page"),
        (response("200 OK", "[" * 100_000), CloudUnreachable, "page"),
        (response("503 Service Unavailable", PAGE), CloudUnreachable, "status 503"),
        (response("500 Internal Server Error", {"message": "Invalid"}), CloudUnreachable, "status 500"),
        (response("403 Forbidden", PAGE), UnexpectedResponse, "status 403"),
        (response("302 Found", "", "Location: http://127.0.0.1:1/login"), UnexpectedResponse, "status 302"),
        (b"", CloudUnreachable, "unreachable"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", CloudUnreachable, "unreachable"),
        (SESSION[:-9], CloudUnreachable, "unreachable"),
        (reset, CloudUnreachable, "unreachable"),
        (response("200 OK", b"\x1f\x8bnonsense", "Content-Encoding: gzip"), CloudUnreachable, "unreachable"),
    ],
)
def test_each_log_in_without_a_session_is_an_error_of_its_own(
    sent: Response, error: type[EnlightenError], words: str, odd: OddEnlighten
) -> None:
    """The error decides when the next attempt is allowed."""
    odd.responses["/login"] = sent

    with pytest.raises(EnlightenError, match=words) as refused:
        odd.account.log_in()

    assert type(refused.value) is error
    assert odd.count("/login") == 1
    assert [secret for secret in SECRETS if secret in full_traceback(refused.value)] == []


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (response("400 Bad Request", {"message": "Invalid"}), TokenRefused),
        (response("401 Unauthorized", PAGE), TokenRefused),
        (response("403 Forbidden", PAGE), TokenRefused),
        (response("404 Not Found", PAGE), TokenRefused),
        (response("406 Not Acceptable"), Throttled),
        (response("429 Too Many Requests"), Throttled),
        (response("200 OK", PAGE), CloudUnreachable),
        (response("302 Found", "", "Location: /login"), UnexpectedResponse),
        (response("502 Bad Gateway", PAGE), CloudUnreachable),
    ],
)
def test_each_token_request_without_a_token_is_an_error_of_its_own(
    sent: Response, error: type[EnlightenError], odd: OddEnlighten
) -> None:
    """A token refused for one gateway is not a cloud that is down."""
    odd.responses["/tokens"] = sent

    with pytest.raises(EnlightenError) as refused:
        odd.account.fetch_token(SecretStr(SESSION_ID), SERIAL, time.time())

    assert type(refused.value) is error
    assert [secret for secret in SECRETS if secret in full_traceback(refused.value)] == []


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
def test_a_token_that_is_refused_is_requested_once_more(status: str, odd: OddEnlighten) -> None:
    """Enphase sometimes refuses a token right after the log-in."""
    odd.responses["/tokens"] = response(status)

    with pytest.raises(TokenRefused):
        odd.account.fetch_token(SecretStr(SESSION_ID), SERIAL, time.time())

    assert odd.count("/tokens") == 2


@pytest.mark.parametrize(
    "wrapped",
    [
        "{}",
        "  {}\r\n",
        '"{}"',
        '{{"token": "{}", "expires_at": 1}}',
        '{{"generation_time": 1, "token": " {} "}}',
        "'{}'\n",
    ],
)
def test_a_token_is_read_in_each_format(wrapped: str, odd: OddEnlighten, tmp_path: Path) -> None:
    """As plain text, with spaces or quotes around it, or in JSON."""
    now = time.time()
    text = token(now)
    odd.responses["/tokens"] = response("200 OK", wrapped.format(text))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    supply.fetch_due(now)

    assert gateway.token is not None
    assert gateway.token.token.get_secret_value() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "***",
        "null",
        "{}",
        '{"token": null}',
        '{"message": "Invalid"}',
        "Not enough segments",
        "a.b.c",
        '{"token": "\\ud800.a.b"}',
        ".".join(("eyJhbGciOiJFUzI1NiJ9", urlsafe_b64encode(b"[" * 90_000).decode(), "AAAA")),
        jwt.encode({"aud": SERIAL, "iss": "Entrez", "exp": 4e9}, None, "none"),  # type: ignore[arg-type]  # no key
        jwt.encode({"aud": SERIAL, "iss": "Entrez", "exp": 4e9}, "k" * 32, "HS256"),
        token(1_900_000_000, aud="999999999999"),
        token(1_900_000_000, aud=["999999999999"]),
        token(1_900_000_000, iss=None),
        token(1_900_000_000, exp=None),
        token(1_900_000_000, exp=True),
        token(1_900_000_000, iat="yesterday"),
        token(1_900_000_000, life_s=-1),
    ],
)
def test_a_response_that_is_not_the_token_is_not_cached(text: str, odd: OddEnlighten, tmp_path: Path) -> None:
    """The status contains the reason, and no part of the response."""
    now = 1_900_000_000.0
    odd.responses["/tokens"] = response("200 OK", text)
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    supply.fetch_due(now)

    status = gateway.status(now)
    assert status is not None
    assert (status.state, gateway.token) == ("cloud_unreachable", None)
    assert "without a valid token" in status.message
    assert len(text) < 5 or text not in status.message
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_a_response_that_takes_too_long_times_out(
    head: bytes, odd: OddEnlighten, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its headers, in them, or in its body."""
    monkeypatch.setattr(enlighten_module, "REQUEST_TIMEOUT_S", 0.5)
    odd.responses["/login"] = drip(head)

    with pytest.raises(CloudUnreachable, match=r"within 0\.5 s"):
        odd.account.log_in()


@pytest.mark.parametrize("headers", [(), ("Content-Encoding: gzip",)])
def test_a_response_that_is_too_large_is_not_read_to_its_end(headers: tuple[str, ...], odd: OddEnlighten) -> None:
    """Compressed or not."""
    body = gzip.compress(bytes(100_000_000), 1) if headers else bytes(100_000_000)
    odd.responses["/login"] = response("200 OK", body, *headers)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(CloudUnreachable, match="more than 2000000 bytes"):
        odd.account.log_in()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 60_000


@pytest.mark.parametrize("password", ["pass&word=1+1%20;#?", "grün é ☀ 日本", ' "quoted\\" ', "a\tb"])
def test_a_password_is_sent_unchanged(password: str, odd: OddEnlighten) -> None:
    """Whatever characters it contains."""
    odd.account_of("owner+tag@exämple.com", password).log_in()

    (_path, body), *_ = odd.requests
    assert parse_qs(body.decode()) == {"user[email]": ["owner+tag@exämple.com"], "user[password]": [password]}


def test_a_redirect_is_not_followed_with_the_password(odd: OddEnlighten) -> None:
    """It is an unexpected response."""
    odd.responses["/login"] = response("307 Temporary Redirect", "", "Location: /elsewhere")

    with pytest.raises(UnexpectedResponse):
        odd.account.log_in()

    assert odd.count("/elsewhere") == 0


def test_a_server_without_a_valid_certificate_gets_no_password(roof: Simulator) -> None:
    """The connection ends before a byte of the request is sent."""
    impostor = Enlighten(f"{roof.envoy_url}/login", f"{roof.envoy_url}/tokens", "owner@example.com", SecretStr("x"))

    with pytest.raises(CloudUnreachable, match="certificate of Enphase's cloud is not valid"):
        impostor.log_in()

    assert roof.request_log.served(server="envoy") == []


@pytest.mark.parametrize(
    "sent",
    [
        response("200 OK", {"message": "success"}),
        response("200 OK", {"message": "Invalid"}),
        response("422 Unprocessable", {"errors": ["email"]}),
        response("401 Unauthorized", PAGE),
    ],
)
def test_a_response_that_may_be_a_rejection_is_received_three_times_a_day(
    sent: bytes, odd: OddEnlighten, tmp_path: Path
) -> None:
    """Unknown words do not get the account locked, also across restarts."""
    odd.responses["/login"] = sent
    start = 1_900_000_000

    for minute in range(0, DAY_S // 60, 30):
        now = start + minute * 60
        supply = odd.supply(tmp_path)
        gateway = supply.serve(SERIAL, now)
        supply.fetch_due(now)

    assert odd.count("/login") == 3
    assert "next attempt at" in (gateway.problem or ("", ""))[1]


@pytest.mark.parametrize(("retry_after", "min_delay_s"), [("120", 120), ("999999", HOUR_S), ("soon", 0)])
def test_no_request_is_sent_before_the_time_in_retry_after(
    retry_after: str, min_delay_s: int, odd: OddEnlighten, tmp_path: Path
) -> None:
    """Up to an hour."""
    odd.responses["/login"] = response("503 Service Unavailable", PAGE, f"Retry-After: {retry_after}")
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, 0)

    supply.fetch_due(0)

    assert min_delay_s <= gateway.fetch_at <= max(min_delay_s, 5)


@pytest.mark.parametrize(
    ("life_s", "age_s", "exchanges"),
    [(300, 0, 60), (20 * DAY_S, 345 * DAY_S, 1), (660, 0, 60)],
)
def test_tokens_that_expire_soon_are_fetched_once_a_minute(
    life_s: int, age_s: int, exchanges: int, odd: OddEnlighten, tmp_path: Path
) -> None:
    """At most, in an hour in which Enphase issues tokens that are about to expire, with restarts."""
    start = 1_900_000_000.0
    for second in range(0, HOUR_S, 5):
        now = start + second
        odd.responses["/tokens"] = response("200 OK", token(now, life_s, age_s))
        if second % 500 == 0:
            supply = odd.supply(tmp_path)
            gateway = supply.serve(SERIAL, now)
        supply.fetch_due(now)
        assert gateway.token is not None
        assert gateway.token.expires_at > now

    assert odd.count("/tokens") <= exchanges


def test_requests_within_a_minute_cause_one_log_in(odd: OddEnlighten, tmp_path: Path) -> None:
    """Its session serves all gateways."""
    start = 1_900_000_000.0
    supply = odd.supply(tmp_path)
    for number in range(15):
        serial = f"1220{number:08d}"
        odd.responses["/tokens"] = response("200 OK", token(start, aud=serial))
        supply.serve_requested(serial, start + number)
        supply.fetch_due(start + number)

    assert all(gateway.token is not None for gateway in supply.gateways)
    assert odd.count("/login") == 1


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_a_cloud_that_is_unavailable_gets_one_request_for_all_gateways(
    status: str, odd: OddEnlighten, tmp_path: Path
) -> None:
    """The others would fail too."""
    odd.responses["/tokens"] = response(status)
    supply = odd.supply(tmp_path)
    for number in range(5):
        supply.serve(f"1220{number:08d}", 0)

    assert len(supply.fetch_due(0)) == 5

    assert odd.count("/tokens") == 1
    assert all(gateway.problem and gateway.fetch_at > 0 for gateway in supply.gateways)


def test_a_throttled_account_causes_no_request_until_the_wait_is_over(odd: OddEnlighten, tmp_path: Path) -> None:
    """Also of another gateway, and of another process."""
    start = 1_900_000_000
    odd.responses["/tokens"] = response("429 Too Many Requests", "", "Retry-After: 7200")
    for minute in range(0, 119, 7):
        supply = odd.supply(tmp_path)
        gateway = supply.serve(f"1220{minute:08d}", start + minute * 60)
        supply.fetch_due(start + minute * 60)
        assert gateway.problem is not None
        assert gateway.problem[0] == "locked_out"

    assert (odd.count("/login"), odd.count("/tokens")) == (1, 1)


def test_a_token_without_a_time_of_issue_is_renewed_at_the_same_time_after_a_restart(
    odd: OddEnlighten, tmp_path: Path
) -> None:
    """The time at which it was fetched replaces it."""
    start = 1_900_000_000.0
    odd.responses["/tokens"] = response("200 OK", token(start, iat=None))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, start)
    supply.fetch_due(start)

    later = odd.supply(tmp_path).serve(SERIAL, start + 300 * DAY_S)

    assert later.fetch_at == gateway.fetch_at == start + 335 * DAY_S


def test_a_token_that_cannot_be_cached_is_used(
    odd: OddEnlighten, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be written causes no further request while the process runs."""
    now = time.time()
    (tmp_path / "tokens").symlink_to(tmp_path / "gone" / "away")
    odd.responses["/tokens"] = response("200 OK", token(now))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    for second in range(0, HOUR_S, 60):
        supply.fetch_due(now + second)

    assert gateway.token is not None
    assert odd.count("/tokens") == 1
    assert "cannot save the token" in caplog.text


def test_a_log_in_that_cannot_be_recorded_is_not_made(odd: OddEnlighten, tmp_path: Path) -> None:
    """A full or read-only disk does not get the account locked."""
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, 0)
    (tmp_path / "logins.json").mkdir()

    supply.fetch_due(0)

    assert odd.requests == []
    assert gateway.problem is not None
    assert "STATE_DIR" in gateway.problem[1]


def test_each_error_that_enphase_may_count_is_a_rejected_log_in() -> None:
    """Only these attempts count towards the maximum of a day."""
    counted = {CredentialsRejected, MfaRequired, AccountBlocked, TooManySessions, UnexpectedLoginResponse}

    assert set(LoginRejected.__subclasses__()) == counted
