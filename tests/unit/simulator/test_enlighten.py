"""The simulated Enlighten: log-in, token exchange, and what it rejects."""

from collections.abc import Callable

import jwt
import pytest
import requests

from services.simulator.control_client import ControlClient
from services.simulator.simulator import Simulator

Start = Callable[..., Simulator]
Read = Callable[..., requests.Response]
Control = Callable[[Simulator], ControlClient]

EMAIL, PASSWORD = "owner@example.com", "sunshine"
FORM = {"user[email]": EMAIL, "user[password]": PASSWORD}


def log_in(simulator: Simulator, **details: object) -> requests.Response:
    """Send a log-in."""
    request: dict[str, object] = {"timeout": 5} | (details or {"data": FORM})
    return requests.post(f"{simulator.enlighten_url}/login/login.json?", **request)  # type: ignore[arg-type]


def exchange(simulator: Simulator, **details: object) -> requests.Response:
    """Send an exchange; the details replace valid ones."""
    body = {"session_id": "", "serial_num": simulator.serial, "username": EMAIL} | details
    return requests.post(f"{simulator.enlighten_url}/tokens", json=body, timeout=5)


@pytest.mark.parametrize(
    "encoding",
    [
        {"data": FORM},
        {"files": {name: (None, value) for name, value in FORM.items()}},
        {"json": {"user": {"email": EMAIL, "password": PASSWORD}}},
        {"json": FORM},
    ],
    ids=["form", "multipart", "nested JSON", "flat JSON"],
)
def test_a_log_in_is_accepted_in_every_encoding_in_use(start: Start, encoding: dict[str, object]) -> None:
    """Existing clients send forms, multipart forms and JSON; each gets a session."""
    response = log_in(start(), **encoding)
    assert response.status_code == 200
    assert response.json()["message"] == "success"
    assert response.cookies["_enlighten_4_session"] == response.json()["session_id"]


@pytest.mark.parametrize(("account", "lifetime_s"), [("owner", 31536000), ("installer", 43200)])
def test_a_token_has_the_claims_of_its_account_and_is_accepted(
    start: Start, read: Read, account: str, lifetime_s: int
) -> None:
    """ES256 with a key id, for this serial, valid for a year or for twelve hours."""
    simulator = start(account=account)
    login = log_in(simulator).json()
    assert login["is_consumer"] == (account == "owner")
    response = exchange(simulator, session_id=login["session_id"])
    token = response.text
    assert token.count(".") == 2
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["typ"]) == ("ES256", "JWT")
    assert header["kid"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == lifetime_s
    assert (claims["aud"], claims["iss"]) == (simulator.serial, "Entrez")
    assert (claims["enphaseUser"], claims["username"]) == (account, EMAIL)
    assert read(simulator, "/home", token=token).status_code == 200


def test_the_lifetime_of_tokens_can_be_set(start: Start) -> None:
    """For tests of expired tokens."""
    simulator = start(token_lifetime_s=5)
    token = exchange(simulator, session_id=log_in(simulator).json()["session_id"]).text
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 5


def test_a_wrong_password_session_or_serial_is_rejected_and_counted(start: Start, control: Control) -> None:
    """A token requires all three."""
    simulator = start()
    bad = [
        log_in(simulator, data=FORM | {"user[password]": "rain"}),
        log_in(simulator, data={}),
        log_in(simulator, json=[1]),
        log_in(simulator, data=b"\xff", headers={"Content-Type": "multipart/form-data"}),
    ]
    assert [(response.status_code, response.json()) for response in bad] == [(401, {"message": "Invalid"})] * 4
    session = log_in(simulator).json()["session_id"]
    assert exchange(simulator, session_id="0" * 32).status_code == 401
    assert exchange(simulator, session_id=["x"]).status_code == 401
    assert exchange(simulator, session_id=session, username="x@example.com").status_code == 401
    assert exchange(simulator, session_id=session, serial_num="122000000000").status_code == 403
    assert exchange(simulator, session_id=session).status_code == 200
    assert requests.get(f"{simulator.enlighten_url}/tokens", timeout=5).status_code == 405
    assert requests.get(f"{simulator.enlighten_url}/", timeout=5).status_code == 404
    counters = control(simulator).counters()
    assert [counters[name] for name in ("logins", "logins_refused", "exchanges", "exchanges_refused")] == [1, 4, 1, 4]


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("mfa", {"success": True, "isBlocked": False}),
        ("mfa-required", {"requires_mfa": True}),
        ("blocked", {"success": False, "isBlocked": True}),
        ("too-many-sessions", {"message": "Too many active sessions"}),
    ],
)
def test_a_log_in_without_a_session_has_its_known_shapes(
    start: Start, control: Control, fault: str, body: dict[str, object]
) -> None:
    """Status 200 and no session_id: second factor, blocked account, too many sessions."""
    simulator = start()
    control(simulator).add_fault(fault, count=1)
    response = log_in(simulator)
    assert (response.status_code, response.json()) == (200, body)
    assert ("login_otp_nonce" in response.cookies) == (fault == "mfa")
    assert "session_id" in log_in(simulator).json()


def test_an_exchange_can_return_a_text_that_is_no_token(start: Start, control: Control) -> None:
    """With status 200; the general faults work here too."""
    simulator = start()
    session = log_in(simulator).json()["session_id"]
    control(simulator).add_fault("not-a-jwt", count=1)
    control(simulator).add_fault("429", server="enlighten", path="/login", retry_after_s=120)
    response = exchange(simulator, session_id=session)
    assert (response.status_code, response.text.count(".")) == (200, 0)
    limited = log_in(simulator)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "120")
    assert exchange(simulator, session_id=session).text.count(".") == 2


def test_enlighten_can_use_tls(start: Start) -> None:
    """With a certificate for the loopback addresses."""
    simulator = start(enlighten_tls=True)
    assert simulator.enlighten_url.startswith("https://")
    with requests.Session() as session:
        session.trust_env = False
        file = simulator._settings.state_dir / "enlighten.pem"
        response = session.post(f"{simulator.enlighten_url}/login/login.json", data=FORM, verify=str(file), timeout=5)
    assert response.status_code == 200


def test_control_issues_any_token(start: Start, read: Read, control: Control) -> None:
    """For tests that need a token without a log-in, or an invalid one."""
    simulator = start()
    assert read(simulator, "/home", token=control(simulator).token()).status_code == 200
    assert read(simulator, "/home", token=control(simulator).token(serial="1")).status_code == 401
    assert read(simulator, "/home", token=control(simulator).token(lifetime_s=-5)).status_code == 401
    assert control(simulator).counters()["exchanges"] == 0
