"""What is made of answers that Enphase gave somebody once, or may give tomorrow: raw bytes from a real socket."""

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
from services.token_broker.enlighten import (
    AccountBlocked,
    CloudUnreachable,
    CredentialsRejected,
    Enlighten,
    EnlightenError,
    LoginNotUnderstood,
    LoginRejected,
    MfaRequired,
    ResponseNotUnderstood,
    SerialRefused,
    Throttled,
    TooManySessions,
)
from services.token_broker.logins import LoginRecord
from services.token_broker.supply import TokenSupply
from services.token_broker.tokens import TokenCache
from tests.programs import HOST

SERIAL = "122012345678"
KEY = ec.generate_private_key(ec.SECP256R1())
HOUR_S, DAY_S = 3600, 86_400

Reply = bytes | Callable[[socket.socket], None]


def answer(status: str, body: bytes | str | dict[str, object] = b"", *headers: str) -> bytes:
    """Return an answer as it goes over the wire; a dict is sent as JSON."""
    whole = json.dumps(body) if isinstance(body, dict) else body
    content = whole.encode() if isinstance(whole, str) else whole
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def token(now: float, life_s: float = 365 * DAY_S, age_s: float = 0, **claims: object) -> str:
    """Return a token as Enphase signs them; a claim that is None is left out."""
    usual = {"aud": SERIAL, "iss": "Entrez", "enphaseUser": "owner", "iat": int(now - age_s), "exp": int(now + life_s)}
    return jwt.encode({name: claim for name, claim in (usual | claims).items() if claim is not None}, KEY, "ES256")


PAGE = "<!DOCTYPE html><html><body>Please wait, the queue is full</body></html>"
SESSION_ID = "0123456789abcdef0123456789abcdef"
SESSION = answer("200 OK", {"message": "success", "session_id": SESSION_ID, "manager_token": "eyJhbGciOiJFUzI1NiJ9"})
SECRETS = ("owner@example.com", "owner%40", "sunshine", SESSION_ID, "eyJ")


class OddEnlighten(socketserver.ThreadingTCPServer):
    """Answers a log-in and a token exchange with whatever bytes it is told to, and remembers what it was sent."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Exchange)
        self.replies: dict[str, Reply] = {"/login": SESSION}
        self.heard: list[tuple[str, bytes]] = []

    @property
    def account(self) -> Enlighten:
        """An account here."""
        return self.account_of("owner@example.com", "sunshine")

    def account_of(self, email: str, password: str) -> Enlighten:
        """Return somebody's account here."""
        url = f"http://{HOST}:{self.server_address[1]}"
        return Enlighten(f"{url}/login", f"{url}/tokens", email, SecretStr(password), pause=lambda _s: None)

    def supply(self, state: Path) -> TokenSupply:
        """Return the supply of a token_broker that starts now."""
        account = self.account
        return TokenSupply(
            account, LoginRecord(state / "logins.json", account.email, account.password), TokenCache(state / "tokens")
        )

    def count(self, path: str) -> int:
        """Return how many requests came for a path."""
        return sum(asked == path for asked, _body in self.heard)


class _Exchange(socketserver.StreamRequestHandler):
    server: OddEnlighten

    def handle(self) -> None:
        path = self.rfile.readline().split(b" ")[1].decode()
        length = 0
        while (line := self.rfile.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.server.heard.append((path, self.rfile.read(length)))
        reply = self.server.replies[path]
        with suppress(OSError):
            if isinstance(reply, bytes):
                self.wfile.write(reply)
            else:
                reply(self.connection)


@pytest.fixture
def odd() -> Iterator[OddEnlighten]:
    """Yield a running OddEnlighten."""
    with OddEnlighten() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def everything_said(error: BaseException) -> str:
    """Return the traceback of an error with all that led to it, shown or not."""
    said = "".join(traceback.format_exception(error))
    for earlier in (error.__cause__, error.__context__):
        said += everything_said(earlier) if earlier else ""
    return said


def reset(connection: socket.socket) -> None:
    """Break a connection off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def drip(head: bytes) -> Callable[[socket.socket], None]:
    """Return what sends a beginning, and then a byte now and then for ever."""

    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"a")
            time.sleep(0.05)

    return send


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (answer("401 Unauthorized", {"message": "Invalid"}), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (answer("401 Unauthorized"), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (answer("401 Unauthorized", PAGE), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (answer("200 OK", {"message": "Invalid email or password"}), CredentialsRejected, "ENLIGHTEN_PASSWORD"),
        (answer("200 OK", {"success": True, "isBlocked": False}), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"requires_mfa": True}), MfaRequired, "ENVOY_TOKEN"),
        (answer("401 Unauthorized", {"requires_mfa": True}), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"success": False, "isBlocked": True}), AccountBlocked, "unblock"),
        (answer("403 Forbidden", {"message": "Invalid", "isBlocked": True}), AccountBlocked, "unblock"),
        (answer("200 OK", {"message": "Too many active sessions"}), TooManySessions, "log out"),
        (answer("403 Forbidden", {"message": "Too many active sessions"}), TooManySessions, "log out"),
        (answer("429 Too Many Requests", {"message": "Too many requests"}), Throttled, "too often"),
        (answer("406 Not Acceptable", PAGE), Throttled, "too often"),
        (answer("200 OK", {"message": "success"}), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"message": "success"}, "Set-Cookie: _enlighten_4_session=1"), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"message": "success", "session_id": ""}), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"message": "success", "session_id": None}), MfaRequired, "ENVOY_TOKEN"),
        (answer("200 OK", {"session_id": 17}), LoginNotUnderstood, "without a session"),
        (answer("200 OK", {}), LoginNotUnderstood, "without a session"),
        (answer("422 Unprocessable", {"errors": ["email"]}), LoginNotUnderstood, "status 422"),
        (answer("200 OK", PAGE), CloudUnreachable, "page"),
        (answer("200 OK"), CloudUnreachable, "page"),
        (answer("200 OK", "[]"), CloudUnreachable, "page"),
        (answer("200 OK", "[" * 100_000), CloudUnreachable, "page"),
        (answer("503 Service Unavailable", PAGE), CloudUnreachable, "status 503"),
        (answer("500 Internal Server Error", {"message": "Invalid"}), CloudUnreachable, "status 500"),
        (answer("403 Forbidden", PAGE), ResponseNotUnderstood, "status 403"),
        (answer("302 Found", "", "Location: http://127.0.0.1:1/login"), ResponseNotUnderstood, "status 302"),
        (b"", CloudUnreachable, "cannot be reached"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", CloudUnreachable, "cannot be reached"),
        (SESSION[:-9], CloudUnreachable, "cannot be reached"),
        (reset, CloudUnreachable, "cannot be reached"),
        (answer("200 OK", b"\x1f\x8bnonsense", "Content-Encoding: gzip"), CloudUnreachable, "cannot be reached"),
    ],
)
def test_a_log_in_that_gives_no_session_is_named(
    reply: Reply, error: type[EnlightenError], words: str, odd: OddEnlighten
) -> None:
    """Each answer has its own error; what it means for the account decides the pace."""
    odd.replies["/login"] = reply

    with pytest.raises(EnlightenError, match=words) as refused:
        odd.account.log_in()

    assert type(refused.value) is error
    assert odd.count("/login") == 1
    assert [secret for secret in SECRETS if secret in everything_said(refused.value)] == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer("400 Bad Request", {"message": "Invalid"}), SerialRefused),
        (answer("401 Unauthorized", PAGE), SerialRefused),
        (answer("403 Forbidden", PAGE), SerialRefused),
        (answer("404 Not Found", PAGE), SerialRefused),
        (answer("406 Not Acceptable"), Throttled),
        (answer("429 Too Many Requests"), Throttled),
        (answer("200 OK", PAGE), CloudUnreachable),
        (answer("302 Found", "", "Location: /login"), ResponseNotUnderstood),
        (answer("502 Bad Gateway", PAGE), CloudUnreachable),
    ],
)
def test_an_exchange_that_gives_no_token_is_named(reply: Reply, error: type[EnlightenError], odd: OddEnlighten) -> None:
    """A refusal for this gateway is another thing than a cloud that is down."""
    odd.replies["/tokens"] = reply

    with pytest.raises(EnlightenError) as refused:
        odd.account.token(SecretStr(SESSION_ID), SERIAL)

    assert type(refused.value) is error
    assert [secret for secret in SECRETS if secret in everything_said(refused.value)] == []


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
def test_a_refusal_in_the_first_moment_is_asked_again_once(status: str, odd: OddEnlighten) -> None:
    """Enphase refuses a token right after the log-in at times."""
    odd.replies["/tokens"] = answer(status)

    with pytest.raises(SerialRefused):
        odd.account.token(SecretStr(SESSION_ID), SERIAL)

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
def test_a_token_in_any_wrapping_is_taken(wrapped: str, odd: OddEnlighten, tmp_path: Path) -> None:
    """Bare, with spaces around, in quotes, as JSON."""
    now = time.time()
    text = token(now)
    odd.replies["/tokens"] = answer("200 OK", wrapped.format(text))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    supply.fetch_due(now)

    assert gateway.token is not None
    assert gateway.token.text == text


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
        token(1_900_000_000, aud=[SERIAL]),
        token(1_900_000_000, iss=None),
        token(1_900_000_000, exp=None),
        token(1_900_000_000, exp=True),
        token(1_900_000_000, iat="yesterday"),
        token(1_900_000_000, life_s=-1),
    ],
)
def test_what_is_not_the_token_is_not_kept(text: str, odd: OddEnlighten, tmp_path: Path) -> None:
    """Nothing reaches the cache, the status says so, and no part of the answer is in it."""
    now = 1_900_000_000.0
    odd.replies["/tokens"] = answer("200 OK", text)
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    supply.fetch_due(now)

    status = gateway.status(now)
    assert status is not None
    assert (status.state, gateway.token) == ("cloud_unreachable", None)
    assert "handed out something that is not the token" in status.message
    assert len(text) < 5 or text not in status.message
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_a_cloud_that_drips_is_left_in_time(head: bytes, odd: OddEnlighten, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it in the middle of the headers."""
    monkeypatch.setattr(enlighten_module, "DEADLINE_S", 0.5)
    odd.replies["/login"] = drip(head)

    with pytest.raises(CloudUnreachable, match=r"within 0\.5 s"):
        odd.account.log_in()


@pytest.mark.parametrize("headers", [(), ("Content-Encoding: gzip",)])
def test_an_answer_that_never_ends_fills_no_memory(headers: tuple[str, ...], odd: OddEnlighten) -> None:
    """Plain or packed, it is refused beyond a size."""
    body = gzip.compress(bytes(100_000_000), 1) if headers else bytes(100_000_000)
    odd.replies["/login"] = answer("200 OK", body, *headers)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(CloudUnreachable, match="more than 2000000 bytes"):
        odd.account.log_in()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 60_000


@pytest.mark.parametrize("password", ["pass&word=1+1%20;#?", "grün é ☀ 日本", ' "quoted\\" ', "a\tb"])
def test_a_password_arrives_as_it_was_given(password: str, odd: OddEnlighten) -> None:
    """Whatever signs it holds."""
    odd.account_of("owner+tag@exämple.com", password).log_in()

    (_path, body), *_ = odd.heard
    assert parse_qs(body.decode()) == {"user[email]": ["owner+tag@exämple.com"], "user[password]": [password]}


def test_a_redirect_takes_no_password_elsewhere(odd: OddEnlighten) -> None:
    """Neither the log-in nor the session follows it."""
    odd.replies["/login"] = answer("307 Temporary Redirect", "", "Location: /elsewhere")

    with pytest.raises(ResponseNotUnderstood):
        odd.account.log_in()

    assert odd.count("/elsewhere") == 0


def test_a_cloud_that_cannot_prove_who_it_is_hears_no_password(roof: Simulator) -> None:
    """A certificate that nobody vouches for ends it before a byte of the account is sent."""
    impostor = Enlighten(f"{roof.envoy_url}/login", f"{roof.envoy_url}/tokens", "owner@example.com", SecretStr("x"))

    with pytest.raises(CloudUnreachable, match="does not prove who it is"):
        impostor.log_in()

    assert roof.request_log.served(server="envoy") == []


@pytest.mark.parametrize(
    "reply",
    [
        answer("200 OK", {"message": "success"}),
        answer("200 OK", {"message": "Invalid"}),
        answer("422 Unprocessable", {"errors": ["email"]}),
        answer("401 Unauthorized", PAGE),
    ],
)
def test_an_answer_that_may_be_a_rejection_is_met_three_times_a_day(
    reply: bytes, odd: OddEnlighten, tmp_path: Path
) -> None:
    """Words that nobody has seen yet lock no owner out, across restarts."""
    odd.replies["/login"] = reply
    start = 1_900_000_000

    for minute in range(0, DAY_S // 60, 30):
        now = start + minute * 60
        supply = odd.supply(tmp_path)
        gateway = supply.serve(SERIAL, now)
        supply.fetch_due(now)

    assert odd.count("/login") == 3
    assert "Next attempt" in (gateway.problem or ("", ""))[1]


@pytest.mark.parametrize(("told", "expected_s"), [("120", 120), ("999999", HOUR_S), ("soon", 0)])
def test_a_cloud_that_says_when_it_is_back_is_not_asked_before(
    told: str, expected_s: int, odd: OddEnlighten, tmp_path: Path
) -> None:
    """For an hour at most."""
    odd.replies["/login"] = answer("503 Service Unavailable", PAGE, f"Retry-After: {told}")
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, 0)

    supply.fetch_due(0)

    assert expected_s <= gateway.fetch_at <= max(expected_s, 5)


@pytest.mark.parametrize(
    ("life_s", "age_s", "exchanges"),
    [(300, 0, 60), (20 * DAY_S, 345 * DAY_S, 1), (660, 0, 60)],
)
def test_a_token_that_hardly_lasts_makes_no_storm(
    life_s: int, age_s: int, exchanges: int, odd: OddEnlighten, tmp_path: Path
) -> None:
    """An hour in which Enphase hands out tokens near their end: one a minute at most, restarts included."""
    start = 1_900_000_000.0
    for second in range(0, HOUR_S, 5):
        now = start + second
        odd.replies["/tokens"] = answer("200 OK", token(now, life_s, age_s))
        if second % 500 == 0:
            supply = odd.supply(tmp_path)
            gateway = supply.serve(SERIAL, now)
        supply.fetch_due(now)
        assert gateway.token is not None
        assert gateway.token.expires_at > now

    assert odd.count("/tokens") <= exchanges


def test_pollers_that_ask_one_after_the_other_cost_one_log_in(odd: OddEnlighten, tmp_path: Path) -> None:
    """A log-in serves all who ask within a minute of it."""
    start = 1_900_000_000.0
    supply = odd.supply(tmp_path)
    for number in range(15):
        serial = f"1220{number:08d}"
        odd.replies["/tokens"] = answer("200 OK", token(start, aud=serial))
        supply.requested(serial, start + number)
        supply.fetch_due(start + number)

    assert all(gateway.token is not None for gateway in supply.all)
    assert odd.count("/login") == 1


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_a_cloud_that_gives_one_gateway_no_token_now_is_not_asked_for_the_others(
    status: str, odd: OddEnlighten, tmp_path: Path
) -> None:
    """One request tells that all have to wait."""
    odd.replies["/tokens"] = answer(status)
    supply = odd.supply(tmp_path)
    for number in range(5):
        supply.serve(f"1220{number:08d}", 0)

    assert len(supply.fetch_due(0)) == 5

    assert odd.count("/tokens") == 1
    assert all(gateway.problem and gateway.fetch_at > 0 for gateway in supply.all)


def test_a_throttled_account_is_left_alone_whoever_asks_next(odd: OddEnlighten, tmp_path: Path) -> None:
    """Be it another gateway, or another process."""
    start = 1_900_000_000
    odd.replies["/tokens"] = answer("429 Too Many Requests", "", "Retry-After: 7200")
    for minute in range(0, 119, 7):
        supply = odd.supply(tmp_path)
        gateway = supply.serve(f"1220{minute:08d}", start + minute * 60)
        supply.fetch_due(start + minute * 60)
        assert gateway.problem is not None
        assert gateway.problem[0] == "locked_out"

    assert (odd.count("/login"), odd.count("/tokens")) == (1, 1)


def test_a_token_that_does_not_tell_when_it_was_issued_keeps_its_renewal_over_restarts(
    odd: OddEnlighten, tmp_path: Path
) -> None:
    """What was noted when it was fetched stands in."""
    start = 1_900_000_000.0
    odd.replies["/tokens"] = answer("200 OK", token(start, iat=None))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, start)
    supply.fetch_due(start)

    later = odd.supply(tmp_path).serve(SERIAL, start + 300 * DAY_S)

    assert later.fetch_at == gateway.fetch_at == start + 335 * DAY_S


def test_a_token_that_cannot_be_kept_is_supplied_all_the_same(
    odd: OddEnlighten, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be written costs the cache, not the token, and no second exchange."""
    now = time.time()
    (tmp_path / "tokens").symlink_to(tmp_path / "gone" / "away")
    odd.replies["/tokens"] = answer("200 OK", token(now))
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, now)

    for second in range(0, HOUR_S, 60):
        supply.fetch_due(now + second)

    assert gateway.token is not None
    assert odd.count("/tokens") == 1
    assert "cannot be kept" in caplog.text


def test_a_log_in_that_cannot_be_counted_is_not_tried(odd: OddEnlighten, tmp_path: Path) -> None:
    """A full or read-only disk locks nobody out."""
    supply = odd.supply(tmp_path)
    gateway = supply.serve(SERIAL, 0)
    (tmp_path / "logins.json").mkdir()

    supply.fetch_due(0)

    assert odd.heard == []
    assert gateway.problem is not None
    assert "STATE_DIR" in gateway.problem[1]


def test_errors_are_rejections_or_not_as_the_pace_demands() -> None:
    """Whatever Enphase may have judged is counted; what it could not judge is not."""
    counted = {CredentialsRejected, MfaRequired, AccountBlocked, TooManySessions, LoginNotUnderstood}

    assert set(LoginRejected.__subclasses__()) == counted
