"""Whatever a gateway answers: nothing crashes, no number is not finite, no reading is half."""

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

from services.poller.envoy import GatewayError, read_identity
from services.poller.reader import GatewayReader
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
from tests.unit.poller.recorded import PATHS, RememberedEnvoy, recorded_answers, simulated_answers

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "250"))
"""For each gateway; FUZZ_EXAMPLES=2000 for a long run."""

SIMULATED = ("metered-split", "unmetered")
ASKED = tuple(path for path in PATHS if path != "/info")

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
    """Yield the way to each value in a JSON document."""
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from places(value, (*path, place))


def spoiled(body: bytes, chance: random.Random) -> bytes:
    """Return a body with something wrong in it."""
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
        tree = spoiled_tree(tree, chance)
    text = json.dumps(tree)
    for number, junk in reversed(list(enumerate(JUNK))):
        text = text.replace(json.dumps(MARK + str(number)), junk.decode())
    return text.encode()


def spoiled_tree(tree: Any, chance: random.Random) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON document with a value gone, twice there, or marked to become junk."""
    way_there = chance.choice(list(places(tree)))
    junk = MARK + str(chance.randrange(len(JUNK)))
    if not way_there:
        return junk
    *before, last = way_there
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
    """Hold readings to what is promised of every one."""
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


def fuzz(answers: dict[str, tuple[int, bytes]], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Try many spoiled answers on a gateway, each on a reader that then reads good ones again."""
    tried = published = 0
    identity = read_identity(answers["/info"][1])
    good = GatewayReader(RememberedEnvoy(answers), identity).read()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(st.integers(0, 2**32), st.lists(st.sampled_from(ASKED), min_size=1, max_size=3))
    def read(seed: int, paths: list[str]) -> None:
        nonlocal tried, published
        chance = random.Random(seed)
        envoy = RememberedEnvoy(answers)
        reader = GatewayReader(envoy, identity)
        for path in paths:
            envoy.answers[path] = (200, spoiled(answers[path][1], chance))
            tried += 1
        try:
            readings = reader.read()
        except GatewayError:
            readings = []
        check(readings)
        published += len(readings)
        envoy.answers = dict(answers)
        check(reader.read())

    check(good)
    read()

    assert tried >= EXAMPLES
    assert published > EXAMPLES / 2
    with capsys.disabled():
        print(f"\n{name}: {tried} spoiled answers tried, {published} readings made of them")  # noqa: T201 - the count


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_corrupt_responses_of_a_gateway_give_no_wrong_reading(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every firmware and oddity, with fields, entries or whole responses corrupt."""
    fuzz(recorded_answers(gateway.write(tmp_path)), gateway.name, capsys)


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_corrupt_responses_of_a_recorded_gateway_give_no_wrong_reading(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real gateway's responses with fields, entries or whole responses corrupt."""
    fuzz(recorded_answers(RECORDINGS / name), name, capsys)


@pytest.mark.parametrize("model", SIMULATED)
def test_whatever_a_simulated_gateway_answers_nothing_wrong_is_made_of_it(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with batteries, storage meter and detailed inverters."""
    with simulator(tmp_path, model=model, batteries=2 if model != "unmetered" else 0) as roof:
        answers = simulated_answers(roof)
    fuzz(answers, model, capsys)
