"""Pins: looked up without a change, written once, never replaced when they are unreadable."""

from pathlib import Path

import pytest

from services.poller.certificates import PinStore
from services.poller.errors import GatewayUntrusted

SERIAL = "122012345678"


def test_a_pin_is_found_as_it_was_written(tmp_path: Path) -> None:
    """And readable by its owner alone."""
    pins = PinStore(tmp_path / "poller")

    pins.pin(SERIAL, "a1" * 32)

    assert pins.lookup(SERIAL) == "a1" * 32
    assert pins.lookup("122000000099") is None
    assert pins.path(SERIAL).stat().st_mode & 0o777 == 0o600


def test_a_lookup_writes_nothing(tmp_path: Path) -> None:
    """Not even the folder."""
    assert PinStore(tmp_path / "poller").lookup(SERIAL) is None

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"a1" * 31, b"a1" * 33, b"G1" * 32, b"A1" * 32, b"\xff\xfe\x00" * 30])
def test_an_unreadable_pin_is_an_error_with_its_file(content: bytes, tmp_path: Path) -> None:
    """Half a fingerprint would match no certificate, and an empty one any."""
    pins = PinStore(tmp_path)
    pins.path(SERIAL).write_bytes(content)

    with pytest.raises(GatewayUntrusted, match=str(pins.path(SERIAL))):
        pins.lookup(SERIAL)

    assert pins.path(SERIAL).read_bytes() == content


def test_a_pin_in_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    """It is not the same as no pin."""
    (tmp_path / "poller").touch()

    with pytest.raises(GatewayUntrusted, match=SERIAL):
        PinStore(tmp_path / "poller").lookup(SERIAL)
