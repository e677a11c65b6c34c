"""Corrupt responses: nothing crashes, every number is finite, no reading is incomplete."""

import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.poller.errors import GatewayError
from shared.readings import (
    Battery,
    Consumption,
    Grid,
    Inverter,
    Meter,
    MeterPhase,
    Production,
    Reading,
    reading_from_json,
)
from tests.gateways import Gateway
from tests.gateways.catalog import GATEWAYS
from tests.programs import simulator
from tests.recordings import NAMES, RECORDINGS
from tests.unit.poller.recorded import (
    PATHS,
    RecordedEnvoy,
    Responses,
    new_reader,
    recorded_responses,
    simulated_responses,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "250"))
"""For each gateway; FUZZ_EXAMPLES=2000 for a long run."""

SIMULATED = ("metered-split", "unmetered")
ENDPOINTS = tuple(path for path in PATHS if path != "/info")

JUNK: tuple[bytes, ...] = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e300",
    b"4294967292",
    b"9" * 400,
    b"0",
    b"-0.0",
    b"-5",
    b"2147483648",
    b"1e12",
    b"null",
    b"true",
    b'"12"',
    b'"\\ud800"',
    b'"text"',
    b"[]",
    b"{}",
    b"[[[]]]",
    b'{"error": "404 - Not Found"}',
    b"[" * 5000,
)
BODIES: tuple[bytes, ...] = (
    b"",
    b"<!DOCTYPE html><html><body>Log in</body></html>",
    b"\xff\xfe\x00",
    b"null",
    b"true",
    b"12",
    b'"text"',
    b"[null]",
    b"[[]]",
    b"{}",
    b"[" * 100_000,
    b"Error: 401",
)
MARK = "\x00here\x00"


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    """Yield the path to each value in a JSON document."""
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from places(value, (*path, place))


def corrupt(body: bytes, chance: random.Random) -> bytes:
    """Return a body with something corrupt in it."""
    way = chance.random()
    if way < 0.1:
        return chance.choice(BODIES)
    if way < 0.2:
        return body[: chance.randrange(len(body) + 1)]
    if way < 0.25 and body:
        place = chance.randrange(len(body))
        return body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :]
    try:
        tree = json.loads(body)
    except ValueError:
        return body
    for _ in range(chance.choice((1, 1, 2, 5))):
        tree = corrupt_tree(tree, chance)
    text = json.dumps(tree)
    for number, junk in reversed(list(enumerate(JUNK))):
        text = text.replace(json.dumps(MARK + str(number)), junk.decode())
    return text.encode()


def corrupt_tree(tree: Any, chance: random.Random) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON document with a value removed, repeated, or marked to become junk."""
    place = chance.choice(list(places(tree)))
    junk = MARK + str(chance.randrange(len(JUNK)))
    if not place:
        return junk
    *before, last = place
    holder = tree
    for key in before:
        holder = holder[key]
    if chance.random() < 0.2:
        del holder[last]
    elif chance.random() < 0.1 and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = junk
    return tree


def check(readings: list[Reading]) -> None:
    """Check what is guaranteed of every reading."""
    kinds = {reading.kind: reading for reading in readings}
    assert len(kinds) == len(readings), "one reading of each kind"
    for reading in readings:
        assert reading_from_json(reading.kind, reading.to_json()) == reading
        assert all(math.isfinite(number) for number in reading.numbers().values())
        assert 0 < reading.timestamp <= time.time() + 3600
        match reading:
            case Production() | Consumption() | Grid():
                assert reading.power_w is not None
                assert abs(reading.power_w) <= 2e7
            case Inverter():
                assert abs(reading.power_w) <= 1e7
            case Meter() | MeterPhase():
                assert reading.active_power_w is not None
            case Battery():
                assert reading.numbers()
        energies = [value for name, value in reading.numbers().items() if name.endswith("_wh")]
        assert all(energy >= 0 for energy in energies)


def fuzz(responses: Responses, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Read many corrupt responses of a gateway, each with a reader that then reads good ones again."""
    corrupted = published = 0
    good = new_reader(RecordedEnvoy(responses)).read()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(st.integers(0, 2**32), st.lists(st.sampled_from(ENDPOINTS), min_size=1, max_size=3))
    def read(seed: int, paths: list[str]) -> None:
        nonlocal corrupted, published
        chance = random.Random(seed)
        envoy = RecordedEnvoy(responses)
        reader = new_reader(envoy)
        for path in paths:
            envoy.responses[path] = (200, corrupt(responses[path][1], chance))
            corrupted += 1
        try:
            readings = reader.read()
        except GatewayError:
            readings = []
        check(readings)
        published += len(readings)
        envoy.responses = dict(responses)
        envoy.pass_time()
        check(reader.read())

    check(good)
    read()

    assert corrupted >= EXAMPLES
    assert published > EXAMPLES / 2
    with capsys.disabled():
        print(f"\n{name}: {corrupted} corrupt responses, {published} readings of them")  # noqa: T201 - the count


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_corrupt_responses_of_a_gateway_give_no_wrong_reading(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every firmware and oddity, with fields, entries or whole responses corrupt."""
    fuzz(recorded_responses(gateway.write(tmp_path)), gateway.name, capsys)


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_corrupt_responses_of_a_recorded_gateway_give_no_wrong_reading(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real gateway's responses with fields, entries or whole responses corrupt."""
    fuzz(recorded_responses(RECORDINGS / name), name, capsys)


@pytest.mark.parametrize("model", SIMULATED)
def test_corrupt_responses_of_a_simulated_gateway_give_no_wrong_reading(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with batteries, storage meter and detailed inverters."""
    with simulator(tmp_path, model=model, batteries=2 if model != "unmetered" else 0) as roof:
        responses = simulated_responses(roof)
    fuzz(responses, model, capsys)
