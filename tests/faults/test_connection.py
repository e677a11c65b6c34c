"""Rows B4-B6, B12-B14 and N1 of the fault matrix: what can happen between the services and the broker."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import House, house_in, memory_mb, open_files, packet_loss, pause, standing_house
from tests.programs import Program, wait_until

CONNACK = b"\x20\x03\x00\x00\x00"
TAKEN_OVER = b"\xe0\x02\x8e\x00"
RUBBISH = (
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\xff" * 50,
    CONNACK + b"\x30\xff\xff\xff\xff\xff",  # a length that has no end
    CONNACK + b"\x30\x06\x00\x02\xff\xfe\x00a",  # a topic that is no UTF-8
    CONNACK + b"\x40\x04\x00\x01\x55\x00",  # a reason that there is not
    CONNACK + b"\x90\x02\x00\x01",  # an answer cut short
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Yield a house in which readings arrive."""
    with standing_house(tmp_path) as house:
        yield house


def is_bounded(program: Program) -> bool:
    """Return whether a service holds no more memory and files than it should."""
    return memory_mb(program) < 120 and open_files(program) < 60


def test_b4_connections_reset_again_and_again(house: House) -> None:
    """A storm of resets delays readings and loses none."""
    chance = random.Random(4)
    for _reset in range(20):
        house.proxy.reset_all()
        pause(chance.uniform(0.05, 0.8))

    house.everything_arrives()
    assert house.proxy.cuts > 5
    assert is_bounded(house.poller)
    assert is_bounded(house.sink)


def test_b5_half_open_what_the_broker_says_is_swallowed(house: House) -> None:
    """A connection on which nothing comes back is noticed by its keepalive; what it may have lost is sent again."""
    house.proxy.swallow_answers()
    wait_until(lambda: "lost the connection to the broker" in house.poller.output, "the poller notices", 45)

    house.everything_arrives()


def test_b6_a_broker_that_accepts_and_never_answers(house: House) -> None:
    """Polls go on, and the poller gives up waiting by itself."""
    house.proxy.be_silent()
    house.proxy.reset_all()
    house.poll_on(8)
    assert "not connected" in house.unwell("poller")
    house.proxy.behave()

    house.everything_arrives()


def test_b12_a_broker_that_talks_rubbish(house: House) -> None:
    """No packet, however malformed, leaves a service that runs and does nothing."""
    for rubbish in RUBBISH:
        house.proxy.answer_with(rubbish)
        house.proxy.reset_all()
        talked_to = len(house.proxy.heard)

        def both_hear(after: int = talked_to) -> bool:
            for service in (house.poller, house.sink):
                if not service.running:  # as whoever keeps it running does
                    assert service.process.returncode == 1
                    assert "ending, to be started again" in service.output
                    service.start()
            return len(house.proxy.heard) >= after + 2

        # Each refusal doubles the time until the next try, up to half a minute.
        wait_until(both_hear, f"both hear {rubbish!r}", 100)
        pause(0.5)
    pause(6)  # a service that ends takes its time
    house.proxy.behave()
    wait_until(lambda: both_hear(len(house.proxy.heard) - 2), "both run")

    house.everything_arrives(but=2)
    assert is_bounded(house.poller)


def test_b13_another_client_with_our_client_id(house: House) -> None:
    """Where the broker says so (0x8E; mosquitto 2.0.11 only closes) the service ends with 3, and says what to do."""
    house.proxy.answer_with(CONNACK + TAKEN_OVER)
    house.proxy.reset_all()

    assert house.poller.process.wait(20) == 3
    assert house.sink.process.wait(20) == 3
    assert "another program uses the client id 'poller'" in house.poller.output
    assert "MQTT_CLIENT_ID" in house.poller.output
    house.proxy.behave()
    house.sink.start()
    house.poller.start()

    house.everything_arrives(but=2)


def test_b14_a_broker_that_comes_last(tmp_path: Path) -> None:
    """The poller polls before there is a broker, and nothing of it is lost."""
    with house_in(tmp_path) as house:
        house.run(house.poller)
        house.poll_on(5)
        house.run(house.carbon, house.broker, house.sink)

        house.everything_arrives()


def test_b14_a_broker_whose_name_is_unknown(house: House, tmp_path: Path) -> None:
    """The poller polls on, says where it looks, and what it took goes out under the right name."""
    house.poller.stop()
    lost = Program(
        house.poller._arguments, tmp_path / "lost.log", house.poller._environment | {"MQTT_HOST": "nowhere.invalid"}
    )
    with lost:
        house.poll_on(5)
        wait_until(lambda: "the broker at nowhere.invalid" in lost.output, lost.output)
        assert lost.output.count("cannot connect") == 1
        assert lost.stop(deadline_s=10) == 0
    house.poller.start()

    house.everything_arrives(but=2)


def test_n1_a_line_of_64_kbit_a_second(house: House) -> None:
    """A slow line delays readings and loses none."""
    house.proxy.slow_to(8000)
    house.broker.kill()
    house.poll_on(5)
    house.broker.start()

    house.everything_arrives()


@pytest.mark.root
def test_n1_a_fifth_of_all_packets_lost(house: House) -> None:
    """Lost packets between services, broker and Carbon delay readings and lose none."""
    with packet_loss([house.proxy.port, house.broker.port, house.carbon.port], 0.2):
        house.poll_on(15)

    house.everything_arrives()
