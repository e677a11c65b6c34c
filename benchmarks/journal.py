"""Throughput and processor time of a publisher without and with the journal.

``python -m benchmarks.journal [polls]`` publishes polls of ten readings through a real Mosquitto to a carbon_sink with
a real Carbon: without a journal, then with the journal and the broker's acknowledgement removing a row, then with the
sink's receipt removing it. It prints readings per second until the last row is removed, and the publisher's processor
time for each reading.
"""

import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from shared.journal import Journal
from shared.mqtt import Connection, Message, Publication
from shared.outbox import Outbox, subscriptions
from shared.readings import Production, Reading
from shared.settings import NO_SINK, JournalSettings, MqttSettings
from shared.topics import Topics
from tests.programs import HOST, Program, free_port, listening, wait_until

READINGS_A_POLL = 10
SERIAL = "122012345678"
TIMEOUT_S = 300.0


def main() -> None:
    """Run the benchmark and print its figures."""
    polls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        state = Path(folder)
        ports = {"MQTT_PORT": str(free_port()), "CARBON_PORT": str(free_port())}
        environment = ports | {"STATE_DIR": folder, "CARBON_HOST": HOST, "CARBON_SETTLE_S": "2"}
        for module, setting in [("deploy.local.broker", "MQTT_PORT"), ("deploy.local.carbon", "CARBON_PORT")]:
            running.enter_context(Program.python(module, log=state / f"{module}.log", environment=environment))
            wait_until(partial(listening, int(ports[setting])), module)
        sink = Program.python("services.carbon_sink", log=state / "sink.log", environment=environment)
        running.enter_context(sink)
        wait_until(lambda: "connected to the broker" in sink.output, "the sink is connected")
        settings = MqttSettings(host=HOST, port=int(ports["MQTT_PORT"]), client_id="benchmark")

        print(f"{polls} polls of {READINGS_A_POLL} readings")
        timed("no journal", polls, partial(without_journal, settings, polls))
        for name, receipts_from in [("journal, broker only", NO_SINK), ("journal, receipts", "carbon-sink")]:
            journal_settings = JournalSettings(receipts_from=receipts_from, resend_after_s=120.0)
            path = state / f"{receipts_from}.sqlite"
            timed(name, polls, partial(through_journal, settings, journal_settings, path, polls))


def timed(name: str, polls: int, publish: Callable[[], None]) -> None:
    """Run one way of publishing and print its figures."""
    began, cpu_began_s = time.monotonic(), cpu_s()
    publish()
    duration_s, cpu_used_s = time.monotonic() - began, cpu_s() - cpu_began_s
    count = polls * READINGS_A_POLL
    print(f"{name:<24} {count / duration_s:7,.0f} readings/s  {1e6 * cpu_used_s / count:5.0f} µs CPU a reading")


def without_journal(settings: MqttSettings, polls: int) -> None:
    """Publish without a journal and wait for the broker's acknowledgements."""
    with Connection(settings, stop=threading.Event()) as connection:
        connection.wait_until_connected(10)
        publications: list[Future[Publication]] = []
        for poll in range(polls):
            for reading in readings(poll):
                topic = connection.topics.history(SERIAL, reading.kind)
                publications.append(connection.publish(topic, reading.to_json()))
        wait(publications, TIMEOUT_S)


def through_journal(settings: MqttSettings, journal_settings: JournalSettings, path: Path, polls: int) -> None:
    """Publish through a journal and wait until it is empty."""
    stop = threading.Event()
    with Connection(
        settings, stop=stop, subscriptions=subscriptions(Topics("enphase"), journal_settings)
    ) as connection:
        outbox = Outbox(connection, Journal(path, keep_days=1, max_mb=256), journal_settings)
        publishing = threading.Thread(target=outbox.run, args=(stop,))
        publishing.start()
        for poll in range(polls):
            outbox.add(SERIAL, readings(poll))
        ends_at = time.monotonic() + TIMEOUT_S
        while outbox.counters["readings_receipted"] < polls * READINGS_A_POLL and time.monotonic() < ends_at:
            if isinstance(message := connection.receive(0.1), Message):
                connection.acknowledge(message)
                outbox.handle(message)
        stop.set()
        publishing.join()


def readings(poll: int) -> list[Reading]:
    """Return the readings of a poll."""
    begin = int(time.time()) // 10 * 10 - 10_000_000
    return [
        Production(timestamp=begin + 10 * (READINGS_A_POLL * poll + number), power_w=1.5, source="meter")
        for number in range(READINGS_A_POLL)
    ]


def cpu_s() -> float:
    """Return the processor seconds that this process has used."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


if __name__ == "__main__":
    main()
