"""What is known of gateways: looked up without a change, replaced only for a reason, refused when unreadable."""

import logging
from pathlib import Path

import pytest

from services.poller.certificates import Certificate
from services.poller.errors import GatewayUntrusted
from services.poller.trust import Pin, TrustStore

SERIAL, OTHER = "122012345678", "122000000099"
CERTIFICATE = Certificate("a1" * 32, "b2" * 32, 1_900_000_000)


def test_a_pin_is_found_as_it_was_written(tmp_path: Path) -> None:
    """And readable by its owner alone."""
    trust = TrustStore(tmp_path / "poller")

    trust.pin(SERIAL, CERTIFICATE, "it is the first")

    assert trust.pinned(SERIAL) == Pin("a1" * 32, "b2" * 32)
    assert trust.pinned(OTHER) is None
    assert trust.pin_path(SERIAL).stat().st_mode & 0o777 == 0o600
    assert trust.pin_path(SERIAL).read_text().splitlines()[0] == "a1" * 32


def test_a_certificate_that_is_not_strict_der_is_pinned_without_its_key(tmp_path: Path) -> None:
    """Then no other certificate is accepted on its own."""
    trust = TrustStore(tmp_path)

    trust.pin(SERIAL, Certificate("a1" * 32), "it is the first")

    assert trust.pinned(SERIAL) == Pin("a1" * 32)


@pytest.mark.parametrize("content", ["a1" * 32, "a1" * 32 + "\n", "a1" * 32 + "\r\n", "\n" + "a1" * 32])
def test_a_pin_of_an_earlier_version_is_read(content: str, tmp_path: Path) -> None:
    """It has the fingerprint of the certificate and no key."""
    trust = TrustStore(tmp_path)
    trust.pin_path(SERIAL).write_text(content)

    assert trust.pinned(SERIAL) == Pin("a1" * 32)


def test_a_change_is_logged_with_its_reason_and_a_repetition_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that is trusted from then on changes without a line in the log."""
    trust = TrustStore(tmp_path)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            trust.pin(SERIAL, CERTIFICATE, "it is the first")
            trust.remember("roof", SERIAL)
        written = {path: path.stat().st_ino for path in tmp_path.iterdir()}
        trust.pin(SERIAL, CERTIFICATE, "again")

    assert len(caplog.messages) == 2
    assert "it is the first" in caplog.messages[0]
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == written


def test_a_lookup_writes_nothing(tmp_path: Path) -> None:
    """Not even the folder."""
    trust = TrustStore(tmp_path / "poller")

    assert (trust.pinned(SERIAL), trust.serial_at("roof")) == (None, None)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"a1" * 31,
        b"a1" * 33,
        b"G1" * 32,
        b"A1" * 32,
        b"\xff\xfe\x00" * 30,
        b"a1" * 32 + b"\nkey " + b"b2" * 31,
        b"a1" * 32 + b"\n" + b"b2" * 32,
        b"a1" * 32 + b"\nkey " + b"b2" * 32 + b"\nmore",
    ],
)
def test_an_unreadable_pin_is_an_error_with_its_file(content: bytes, tmp_path: Path) -> None:
    """Half a fingerprint would trust no certificate, and none would trust any."""
    trust = TrustStore(tmp_path)
    trust.pin_path(SERIAL).write_bytes(content)

    with pytest.raises(GatewayUntrusted, match=str(trust.pin_path(SERIAL))):
        trust.pinned(SERIAL)

    assert trust.pin_path(SERIAL).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\n", b"122 012", b"../122", b"1" * 33, b"\xff\xfe1", b"1\n2"])
def test_an_unreadable_address_is_an_error_with_its_file(content: bytes, tmp_path: Path) -> None:
    """It is not the same as an address that was never seen."""
    trust = TrustStore(tmp_path)
    trust.address_path("roof").write_bytes(content)

    with pytest.raises(GatewayUntrusted, match=f"{trust.address_path('roof')} .* set ENVOY_SERIAL"):
        trust.serial_at("roof")

    assert trust.address_path("roof").read_bytes() == content


def test_files_in_a_folder_that_is_none_are_an_error(tmp_path: Path) -> None:
    """They cannot be read, and nothing can be remembered."""
    (tmp_path / "poller").touch()
    trust = TrustStore(tmp_path / "poller")

    for use in (
        lambda: trust.pinned(SERIAL),
        lambda: trust.serial_at("roof"),
        lambda: trust.remember("roof", SERIAL),
        lambda: trust.pin(SERIAL, CERTIFICATE, "it is the first"),
    ):
        with pytest.raises(GatewayUntrusted, match="cannot"):
            use()


@pytest.mark.parametrize("same", ["roof", "ROOF", "http://roof", "https://roof"])
def test_an_address_is_the_same_with_and_without_a_scheme(same: str, tmp_path: Path) -> None:
    """ENVOY_HOST=http://… is no way around what was seen at the address."""
    trust = TrustStore(tmp_path)

    trust.remember(same, SERIAL)

    assert trust.serial_at("roof") == SERIAL
    assert trust.serial_at("roof:8443") is None


@pytest.mark.parametrize("host", ["10.0.0.2:8443", "http://[fe80::1]:80", "..", "envoy.local", "dach-ü.lan"])
def test_every_address_has_one_file_in_the_folder(host: str, tmp_path: Path) -> None:
    """Whatever ENVOY_HOST may hold."""
    trust = TrustStore(tmp_path)

    trust.remember(host, SERIAL)

    assert trust.serial_at(host) == SERIAL
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]
