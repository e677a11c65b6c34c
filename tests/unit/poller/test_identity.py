"""What is read of ``/info``."""

import pytest

from services.poller.errors import BadResponse
from services.poller.identity import parse_info

ENTITIES = '<!DOCTYPE x [<!ENTITY a "1">]><envoy_info><device><sn>&a;</sn><software>D8</software></device></envoy_info>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"{}",
        b"<envoy_info><device><sn>12 34</sn><software>D8</software></device></envoy_info>",
        b"<envoy_info><device><sn>122012345678</sn></device></envoy_info>",
        ENTITIES.encode(),
        ENTITIES.encode("utf-16"),
        f'<?xml version="1.0" encoding="cp037"?>{ENTITIES}'.encode("cp037"),
    ],
)
def test_an_info_that_is_not_an_envoys_is_rejected(body: bytes) -> None:
    """Another device, another page, or XML with entities."""
    with pytest.raises(BadResponse):
        parse_info(body, 0)


@pytest.mark.parametrize(
    ("software", "firmware", "needs_token", "keeps_connections"),
    [
        ("R3.9.36", "3.9.36", False, False),
        ("D5.0.62", "5.0.62", False, True),
        ("D7.0.88", "7.0.88", True, True),
        ("D8.3.5169", "8.3.5169", True, True),
    ],
)
def test_the_firmware_decides_how_to_authenticate(
    software: str,
    firmware: str,
    needs_token: bool,  # noqa: FBT001 - a table
    keeps_connections: bool,  # noqa: FBT001 - a table
) -> None:
    """A token from 7 on, a password before; firmware 3 does not handle kept connections."""
    body = f"<envoy_info><device><sn>122012345678</sn><software>{software}</software></device></envoy_info>"

    identity = parse_info(body.encode(), 0).identity

    found = (identity.firmware, identity.needs_token, identity.keeps_connections)
    assert found == (firmware, needs_token, keeps_connections)


def test_an_odd_info_is_read_as_far_as_possible() -> None:
    """An unknown encoding, blanks, no part number, and a firmware longer than any number may be."""
    software = f"D7.{'9' * 6000}"
    body = f"""<?xml version="1.0" encoding="odd-8"?>
        <envoy_info><device><sn> 122012345678 </sn><pn/><software> {software} </software></device></envoy_info>"""

    identity = parse_info(body.encode(), 0).identity

    assert (identity.serial, identity.part_number, identity.version[0]) == ("122012345678", None, 7)
    assert not identity.metered_hardware


@pytest.mark.parametrize(
    "firmware", ["D8\n2026-01-01 ERROR forged", "D8\x9b31m", "D8\u202e", "D8[/bold]", "[blink]", ""]
)
def test_a_firmware_that_a_terminal_interprets_is_no_gateways(firmware: str) -> None:
    """It is printed, logged and published."""
    body = f"<envoy_info><device><sn>122012345678</sn><software>{firmware}</software></device></envoy_info>"

    with pytest.raises(BadResponse):
        parse_info(body.encode(), 0)


def test_a_part_number_that_a_terminal_interprets_is_left_out() -> None:
    """Nothing depends on it."""
    body = "<envoy_info><device><sn>122012345678</sn><pn>8\u202e</pn><software>D8</software></device></envoy_info>"

    assert parse_info(body.encode(), 0).identity.part_number is None


@pytest.mark.parametrize("filler", ["<a>" * 20_000, "<a/>" * 15_000, "<a>" * 9 + "</a>" * 9])
def test_a_response_of_many_or_deep_elements_is_rejected(filler: str) -> None:
    """Each takes a hundred times as much memory as it has bytes."""
    body = f"<envoy_info><device><sn>122012345678</sn><software>D8</software></device>{filler}</envoy_info>"

    with pytest.raises(BadResponse, match="more elements"):
        parse_info(body.encode(), 0)


def test_info_has_the_gateways_clock_and_the_age_of_its_firmware() -> None:
    """A time that is no number is none."""
    body = """<envoy_info><time>{time}</time><device><sn>122012345678</sn><software>D8</software></device>
        <build_info><build_time_gmt>{built}</build_time_gmt></build_info></envoy_info>"""

    info = parse_info(body.format(time=1_800_000_000, built=1_700_000_000).encode(), 5.5)
    odd = parse_info(body.format(time="noon", built="").encode(), 5.5)

    assert (info.received_at, info.time, info.built_at) == (5.5, 1_800_000_000, 1_700_000_000)
    assert (odd.time, odd.built_at) == (None, 0)
