from collections.abc import Mapping

import pytest

from services.carbon_sink.service import journal_row
from shared.messages import Receipt
from shared.mqtt import Message


@pytest.mark.parametrize(
    ("properties", "row"),
    [
        ({"journal": "a", "sequence": "17"}, ("a", 17)),
        ({"journal": "a", "sequence": "0"}, ("a", 0)),
        ({"journal": "a", "sequence": "9" * 18}, ("a", 10**18 - 1)),
        ({}, None),
        ({"journal": "a"}, None),
        ({"journal": "", "sequence": "17"}, None),
        ({"journal": "a", "sequence": ""}, None),
        ({"journal": "a", "sequence": "-1"}, None),
        ({"journal": "a", "sequence": "1.5"}, None),
        ({"journal": "a", "sequence": "²"}, None),
        ({"journal": "a", "sequence": "9" * 20}, None),
        ({"journal": "a", "sequence": "9" * 5000}, None),
    ],
)
def test_a_journal_row_is_one_that_a_receipt_can_contain_or_none(
    properties: Mapping[str, str], row: tuple[str, int] | None
) -> None:
    """User properties come from outside and may be anything."""
    message = Message("topic", b"", retained=False, user_properties=properties, generation=1, packet_id=1)

    assert journal_row(message) == row
    if row is not None:
        journal, number = row
        assert Receipt(journal=journal, sequences=((number, number),))
