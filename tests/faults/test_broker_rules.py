"""Rows B7-B11 and P8 of the fault matrix: brokers that cannot keep, will not take, or do not know us."""

import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

import shared.mqtt
from shared.mqtt import Connection, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.faults.house import fill, house_in, mosquitto, pause, small_disk, standing_house
from tests.faults.proxy import Proxy
from tests.programs import HOST, wait_until

pytestmark = pytest.mark.mosquitto

HEARTBEATS_ONLY = "topic read #\ntopic write enphase/services/#\n"
EVERYTHING = "topic readwrite #\n"
USER, PASSWORD = "enphase", "open sesame"


@pytest.mark.root
def test_b7_the_brokers_disk_is_full(tmp_path: Path) -> None:
    """Once there is room again the broker starts, whatever it left, and nothing was lost meanwhile."""
    with small_disk(tmp_path / "broker", 600) as filler, standing_house(tmp_path) as house:
        house.sink.stop()
        fill(filler)
        house.poll_on(20)
        house.broker.kill()
        filler.unlink()
        house.broker.start()
        house.sink.start()

        house.everything_arrives()


@pytest.mark.parametrize("damage", ["garbage", "half", "empty"])
def test_b8_a_spoilt_database_is_moved_aside(tmp_path: Path, damage: str) -> None:
    """The broker starts all the same, and the poller publishes again what stood in it."""
    with standing_house(tmp_path) as house:
        house.sink.stop()
        house.poll_on(3)
        house.broker.stop()
        memory = tmp_path / "broker" / "mosquitto.db"
        whole = memory.read_bytes()
        memory.write_bytes(
            {"garbage": bytes(range(256)) * 20, "half": whole[: len(whole) // 2 + 1], "empty": b""}[damage]
        )
        house.broker.start()
        house.sink.start()

        house.everything_arrives()
        if damage == "garbage":
            assert len([*memory.parent.glob("mosquitto.unreadable-*")]) == 1
            assert "set aside" in house.broker.output


def test_b8_a_good_database_is_left_alone(broker: Server, tmp_path: Path) -> None:
    """What was retained before a restart is there after it."""
    settings = MqttSettings(host=HOST, port=broker.port, client_id="me")
    with Connection(settings, stop=threading.Event()) as connection:
        connection.publish("enphase/kept", b"1", retain=True).result(10)
    broker.stop()
    broker.start()

    assert not [*(tmp_path / "broker").glob("*.unreadable-*")]
    kept = [Subscription("enphase/kept")]
    with Connection(settings, stop=threading.Event(), subscriptions=kept, persistent_session=False) as connection:
        wait_until(lambda: getattr(connection.receive(0.1), "payload", b"") == b"1", "it comes, retained")


def test_b9_a_broker_that_keeps_ten_messages_and_drops_the_rest(tmp_path: Path) -> None:
    """It says "Success" to what it drops; without a receipt that counts for nothing."""
    with standing_house(tmp_path, broker_rules=["max_queued_messages 10"]) as house:
        house.sink.stop()
        house.poll_on(15)
        house.sink.start()

        house.everything_arrives()


def test_b10_a_broker_that_does_not_let_us_publish(tmp_path: Path) -> None:
    """It is told once, what was refused is kept and offered again at a walking pace, and passes once it may."""
    rules = tmp_path / "rules"
    rules.write_text(EVERYTHING)
    with standing_house(tmp_path, broker_rules=[f"acl_file {rules}"]) as house:
        rules.write_text(HEARTBEATS_ONLY)
        house.broker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the broker refused a publication" in house.poller.output, "it is told")
        house.poll_on(12)
        assert house.poller.output.count("the broker refused a publication") == 1
        assert "check its access rules" in house.poller.output
        assert house.metric("readings_resent") < 100
        rules.write_text(EVERYTHING)
        house.broker.process.send_signal(signal.SIGHUP)

        house.everything_arrives()


def password_file(path: Path, password: str) -> None:
    """Write a password file in which the one user has a password."""
    path.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", path, USER, password], check=True, capture_output=True)


def test_b11_a_wrong_password(tmp_path: Path) -> None:
    """It is told once with what to check, tried seldom, and ends nobody."""
    passwords = tmp_path / "passwords"
    password_file(passwords, PASSWORD)
    rules = ["allow_anonymous false", f"password_file {passwords}"]
    login = {"MQTT_USERNAME": USER, "MQTT_PASSWORD": PASSWORD}
    with standing_house(tmp_path, broker_rules=rules, settings=login) as house:
        password_file(passwords, "another")
        house.broker.stop()
        house.broker.start()
        wait_until(lambda: "MQTT_USERNAME and MQTT_PASSWORD" in house.poller.output, house.poller.output)
        wait_until(lambda: "MQTT_USERNAME and MQTT_PASSWORD" in house.sink.output, house.sink.output)
        connects = house.proxy.accepted
        house.poll_on(15)
        assert house.proxy.accepted == connects
        assert "not connected" in house.unwell("poller")
        assert "not connected" in house.unwell("carbon_sink")
        assert house.poller.output.count("MQTT_USERNAME and MQTT_PASSWORD") == 1
        password_file(passwords, PASSWORD)
        house.broker.process.send_signal(signal.SIGHUP)
        for service in (house.sink, house.poller):  # or after a minute: the next test
            assert service.running
            service.stop()
            service.start()

        house.everything_arrives(but=2)


def test_b11_a_password_that_is_mended_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No restart is needed once the broker knows us."""
    monkeypatch.setattr(shared.mqtt, "MIN_REFUSED_DELAY_S", 2)
    monkeypatch.setattr(shared.mqtt, "MAX_REFUSED_DELAY_S", 3)
    passwords = tmp_path / "passwords"
    password_file(passwords, "another")
    with (
        mosquitto(tmp_path, ["allow_anonymous false", f"password_file {passwords}"]) as broker,
        Proxy(broker.port) as proxy,
    ):
        settings = MqttSettings(host=HOST, port=proxy.port, client_id="me", username=USER, password=SecretStr(PASSWORD))
        with Connection(settings, stop=threading.Event()) as connection:
            pause(5)
            assert 2 <= proxy.accepted <= 3
            password_file(passwords, PASSWORD)
            broker.process.send_signal(signal.SIGHUP)

            assert connection.wait_until_connected(10)
            proxy.reset_all()
            wait_until(lambda: not connection.connected, "the loss is noticed")
            lost_at = time.monotonic()
            assert connection.wait_until_connected(10)
            assert time.monotonic() - lost_at < 2  # the usual pace again


def test_p8_a_reading_larger_than_the_broker_takes(tmp_path: Path) -> None:
    """It is told and stays where it is; the readings behind it flow."""
    with house_in(tmp_path, broker_rules=["max_packet_size 4000"]) as house:
        house.run(house.poller)
        house.poll_on(2)
        house.poller.stop()
        with closing(sqlite3.connect(tmp_path / "poller" / "journal.sqlite")) as journal, journal:
            enlarged = "UPDATE readings SET payload = CAST(payload || ? AS BLOB) WHERE sequence = 1"
            journal.execute(enlarged, [" " * 5000])
        house.start()
        wait_until(lambda: "larger than the broker takes" in house.poller.output, house.poller.output)

        house.everything_arrives(but=3)
        assert "lost the connection to the broker" not in house.poller.output
