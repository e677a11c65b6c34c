from services.carbon_sink.points import Point
from services.carbon_sink.settling import Batch, Unsettled, ranges, receipts
from shared.messages import Receipt

SETTLE_S = 30.0


def batch(*rows: int, journal: str = "a") -> Batch:
    """Return a batch of one point for each row."""
    return Batch([Point("path", row, row) for row in rows], [(journal, row) for row in rows])


def test_a_batch_settles_in_order_once_it_is_old_enough() -> None:
    """The age counts from when Carbon read it."""
    unsettled = Unsettled(SETTLE_S)
    first, second = batch(1, 2), batch(3)
    unsettled.add(first, 0)
    unsettled.add(second, 10)

    assert unsettled.points == 3
    assert not unsettled.is_due(SETTLE_S - 1)
    assert unsettled.remove_due(SETTLE_S) == [first]
    assert unsettled.points == 1
    assert unsettled.remove_due(SETTLE_S + 10) == [second]
    assert len(unsettled) == 0


def test_a_batch_that_was_resent_is_as_young_as_its_resend() -> None:
    """What Carbon has read again may be lost again."""
    unsettled = Unsettled(SETTLE_S)
    unsettled.add(batch(1), 0)

    for each in unsettled:
        each.read_at = 100

    assert unsettled.remove_due(100 + SETTLE_S - 1) == []
    assert len(unsettled.remove_due(100 + SETTLE_S)) == 1


def test_each_journal_gets_one_receipt_with_ranges_of_rows() -> None:
    """Rows of several batches are joined, and the order of arrival does not matter."""
    assert receipts([batch(3, 1), batch(2, 7), batch(5, journal="b"), Batch([Point("path", 1, 1)])]) == [
        Receipt(journal="a", sequences=((1, 3), (7, 7))),
        Receipt(journal="b", sequences=((5, 5),)),
    ]
    assert ranges([]) == ()
    assert ranges([5, 5, 4]) == ((4, 5),)
