"""How many readings per second go through a real broker and carbon_sink into a real Carbon.

``python -m benchmarks.sink [readings]`` starts all three on free ports, publishes a burst of readings with QoS 1,
waits until the last one is in its Whisper file, and prints readings and points per second, and the CPU time and memory
of each program.
"""

import os
import resource
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import whisper

from shared.mqtt import Connection, Subscription
from shared.readings import Grid
from shared.settings import MqttSettings
from tests.programs import HOST, Program, free_port, listening, wait_until

SERIALS = 20
STEP_S = 10
STORED_DEADLINE_S = 120.0
POINTS_PER_READING = len(Grid.model_fields) - 1


def main() -> None:
    """Run the benchmark and print its results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        state = Path(folder)
        ports = {"MQTT_PORT": str(free_port()), "CARBON_PORT": str(free_port())}
        environment = ports | {"STATE_DIR": folder, "CARBON_HOST": HOST}
        programs = {
            module: running.enter_context(Program.python(module, log=state / f"{module}.log", environment=environment))
            for module in ("deploy.local.broker", "deploy.local.carbon")
        }
        for port in ports.values():
            wait_until(lambda port=port: listening(int(port)), f"port {port}")  # type: ignore[misc]
        settings = MqttSettings(host=HOST, port=int(ports["MQTT_PORT"]), client_id="benchmark")
        online = Subscription("enphase/services/carbon-sink/status")
        publisher = running.enter_context(Connection(settings, stop=threading.Event(), subscriptions=[online]))
        sink = Program.python("services.carbon_sink", log=state / "sink.log", environment=environment)
        programs["services.carbon_sink"] = running.enter_context(sink)
        wait_until(lambda: getattr(publisher.receive(0.1), "payload", b"") == b"online", "the sink is online")

        before = {module: cpu_s(program) for module, program in programs.items()}
        started = time.monotonic()
        publish(publisher, count)
        published_s = time.monotonic() - started
        wait_until(lambda: all_stored(state / "graphite" / "whisper", count), "the last readings", STORED_DEADLINE_S)
        stored_s = time.monotonic() - started

        print(f"{count} readings, {count * POINTS_PER_READING} points, {SERIALS} gateways; {os.cpu_count()} cores")
        print(f"queued in the MQTT client after {published_s:.2f} s, all stored after {stored_s:.2f} s:")
        print(f"{count / stored_s:,.0f} readings/s, {count * POINTS_PER_READING / stored_s:,.0f} points/s")
        for module, program in programs.items():
            used_s = cpu_s(program) - before[module]
            print(f"{module:<22} {1e6 * used_s / count:6.0f} µs CPU per reading, {memory_mb(program):5.1f} MB")
        own_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        print(f"{'this publisher':<22} {1e6 * own_s / count:6.0f} µs CPU per reading")


def publish(publisher: Connection, count: int) -> None:
    """Publish readings of several gateways, the newest of each last."""
    newest = int(time.time()) // STEP_S * STEP_S
    steps = count // SERIALS
    for step in range(steps):
        for gateway in range(SERIALS):
            reading = Grid(
                timestamp=newest - STEP_S * (steps - 1 - step),
                power_w=step + 0.5,
                import_power_w=step + 0.5,
                export_power_w=0,
                import_lifetime_wh=step,
                export_lifetime_wh=0,
            )
            publisher.publish(publisher.topics.history(serial(gateway), reading.kind), reading.to_json())


def serial(gateway: int) -> str:
    """Return a serial number."""
    return f"1220000000{gateway:02d}"


def all_stored(folder: Path, count: int) -> bool:
    """Return whether the last reading of each gateway is in its file."""
    last = count // SERIALS - 1 + 0.5
    for gateway in range(SERIALS):
        file = folder / "enphase" / serial(gateway) / "grid" / "power_w.wsp"
        if not file.exists():
            return False
        _times, values = whisper.fetch(str(file), int(time.time()) - 600)
        if last not in values:
            return False
    return True


def cpu_s(program: Program) -> float:
    """Return the processor seconds that a program has used."""
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(program: Program) -> float:
    """Return the maximum resident memory of a program, in MB."""
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return peak_kb / 1000


if __name__ == "__main__":
    main()
