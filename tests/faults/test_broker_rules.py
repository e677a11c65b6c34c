"""Brokers that cannot store, refuse what is published, or do not know the account. Only Mosquitto has such rules."""

import signal
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

import shared.mqtt
from shared.mqtt import Connection, Subscription
from shared.settings import MqttSettings
from tests.conftest import Server
from tests.faults.pipeline import fill, mosquitto, prepared_pipeline, running_pipeline, small_disk
from tests.faults.proxy import Proxy
from tests.programs import HOST, wait_until

pytestmark = pytest.mark.mosquitto

HEARTBEATS_ONLY = "topic read #\ntopic write enphase/services/#\n"
EVERYTHING = "topic readwrite #\n"
USER, PASSWORD = "enphase", "open sesame"
CREDENTIALS_HINT = "MQTT_USERNAME and MQTT_PASSWORD"
REFUSED = "the broker refused a publication"


@pytest.mark.root
def test_a_full_disk_of_the_broker_loses_nothing(tmp_path: Path) -> None:
    """Once there is space again the broker starts, whatever it had written."""
    with small_disk(tmp_path / "broker", 600) as filler, running_pipeline(tmp_path) as pipeline:
        pipeline.sink.stop()
        fill(filler)
        pipeline.wait_for_polls(20)
        pipeline.broker.kill()
        filler.unlink()
        pipeline.broker.start()
        pipeline.sink.start()

        pipeline.assert_everything_arrives()


@pytest.mark.parametrize("damage", ["garbage", "half", "empty"])
def test_a_corrupt_database_of_the_broker_is_quarantined(tmp_path: Path, damage: str) -> None:
    """The broker starts without it, and the poller publishes again what was in it."""
    with running_pipeline(tmp_path) as pipeline:
        pipeline.sink.stop()
        pipeline.wait_for_polls(3)
        pipeline.broker.stop()
        database = tmp_path / "broker" / "mosquitto.db"
        whole = database.read_bytes()
        corrupt = {"garbage": bytes(range(256)) * 20, "half": whole[: len(whole) // 2 + 1], "empty": b""}
        database.write_bytes(corrupt[damage])
        pipeline.broker.start()
        pipeline.sink.start()

        pipeline.assert_everything_arrives()
        if damage == "garbage":
            (quarantined,) = database.parent.glob("mosquitto.db*.corrupt")
            assert quarantined.name in pipeline.broker.output


def test_a_good_database_of_the_broker_is_kept(broker: Server, tmp_path: Path) -> None:
    """What was retained before a restart is there afterwards."""
    settings = MqttSettings(host=HOST, port=broker.port, client_id="me")
    with Connection(settings, stop=threading.Event()) as connection:
        connection.publish("enphase/kept", b"1", retain=True).result(10)
    broker.stop()
    broker.start()

    assert not [*(tmp_path / "broker").glob("*.corrupt")]
    kept = [Subscription("enphase/kept")]
    with Connection(settings, stop=threading.Event(), subscriptions=kept, persistent_session=False) as connection:
        wait_until(lambda: getattr(connection.receive(0.1), "payload", b"") == b"1", "the retained message")


def test_a_broker_that_drops_all_but_ten_queued_messages_loses_nothing(tmp_path: Path) -> None:
    """It acknowledges what it drops with "Success", which is no receipt."""
    with running_pipeline(tmp_path, broker_rules=["max_queued_messages 10"]) as pipeline:
        pipeline.sink.stop()
        pipeline.wait_for_polls(15)
        pipeline.sink.start()

        pipeline.assert_everything_arrives()


def test_a_publication_refused_by_access_rules_is_kept_and_retried_slowly(tmp_path: Path) -> None:
    """It is reported once, and everything arrives once the rules allow it."""
    rules = tmp_path / "rules"
    rules.write_text(EVERYTHING)
    with running_pipeline(tmp_path, broker_rules=[f"acl_file {rules}"]) as pipeline:
        rules.write_text(HEARTBEATS_ONLY)
        pipeline.broker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: REFUSED in pipeline.poller.output, "the refusal is reported")
        pipeline.wait_for_polls(12)
        assert pipeline.poller.output.count(REFUSED) == 1
        assert "check its access rules" in pipeline.poller.output
        assert pipeline.metric("readings_resent") < 100
        rules.write_text(EVERYTHING)
        pipeline.broker.process.send_signal(signal.SIGHUP)

        pipeline.assert_everything_arrives()


def write_password_file(path: Path, password: str) -> None:
    """Write a password file with the password of the one user."""
    path.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", path, USER, password], check=True, capture_output=True)


def test_a_wrong_password_is_reported_once_and_retried_slowly(tmp_path: Path) -> None:
    """Both services keep running, name the settings to check, and do not retry within fifteen polls."""
    passwords = tmp_path / "passwords"
    write_password_file(passwords, PASSWORD)
    rules = ["allow_anonymous false", f"password_file {passwords}"]
    login = {"MQTT_USERNAME": USER, "MQTT_PASSWORD": PASSWORD}
    with running_pipeline(tmp_path, broker_rules=rules, settings=login) as pipeline:
        write_password_file(passwords, "another")
        pipeline.broker.stop()
        pipeline.broker.start()
        wait_until(lambda: CREDENTIALS_HINT in pipeline.poller.output, pipeline.poller.output)
        wait_until(lambda: CREDENTIALS_HINT in pipeline.sink.output, pipeline.sink.output)
        connections = pipeline.proxy.accepted
        pipeline.wait_for_polls(15)
        assert pipeline.proxy.accepted == connections
        assert "not connected" in pipeline.health_problem("poller")
        assert "not connected" in pipeline.health_problem("carbon_sink")
        assert pipeline.poller.output.count(CREDENTIALS_HINT) == 1
        write_password_file(passwords, PASSWORD)
        pipeline.broker.process.send_signal(signal.SIGHUP)
        for service in (pipeline.sink, pipeline.poller):  # or after a minute: the next test
            assert service.running
            service.stop()
            service.start()

        pipeline.assert_everything_arrives(lost_polls=2)


def test_a_corrected_password_is_noticed_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection retries by itself, and after a success a lost connection is retried at the usual rate."""
    monkeypatch.setattr(shared.mqtt, "MAX_REFUSED_DELAY_S", 1)
    passwords = tmp_path / "passwords"
    write_password_file(passwords, "another")
    with (
        mosquitto(tmp_path, ["allow_anonymous false", f"password_file {passwords}"]) as broker,
        Proxy(broker.port) as proxy,
    ):
        settings = MqttSettings(host=HOST, port=proxy.port, client_id="me", username=USER, password=SecretStr(PASSWORD))
        with Connection(settings, stop=threading.Event()) as connection:
            wait_until(lambda: proxy.accepted >= 2, "a retry")
            assert not connection.connected
            write_password_file(passwords, PASSWORD)
            broker.process.send_signal(signal.SIGHUP)

            assert connection.wait_until_connected(30)
            monkeypatch.setattr(shared.mqtt, "MAX_REFUSED_DELAY_S", 3600)
            proxy.reset_all()
            wait_until(lambda: not connection.connected, "the loss is noticed")
            assert connection.wait_until_connected(30)


def test_a_reading_larger_than_the_broker_accepts_blocks_no_other(tmp_path: Path) -> None:
    """It is reported and stays in the journal; the readings behind it arrive."""
    with prepared_pipeline(tmp_path, broker_rules=["max_packet_size 4000"]) as pipeline:
        pipeline.run(pipeline.poller)
        pipeline.wait_for_polls(2)
        pipeline.poller.stop()
        with closing(sqlite3.connect(tmp_path / "poller" / "journal.sqlite")) as journal, journal:
            enlarge = "UPDATE readings SET payload = CAST(payload || ? AS BLOB) WHERE sequence = 1"
            journal.execute(enlarge, [" " * 5000])
        pipeline.start()
        wait_until(lambda: "row 1 is larger than the broker" in pipeline.poller.output, pipeline.poller.output)

        pipeline.assert_everything_arrives(lost_polls=3)
        assert "lost the connection to the broker" not in pipeline.poller.output
