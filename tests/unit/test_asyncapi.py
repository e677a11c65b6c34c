"""docs/asyncapi.yaml is a valid AsyncAPI document, and its topics and payloads are those of the code."""

import inspect
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pydantic import TypeAdapter

from shared.messages import OFFLINE, ONLINE, GatewayInfo, Receipt, TokenRequest, TokenStatus
from shared.mqtt import KEEPALIVE_S, SESSION_EXPIRY_S
from shared.payload import InvalidPayload, Payload
from shared.readings import READINGS, Metrics, Name, Reading, reading_from_json
from shared.settings import MqttSettings
from shared.tokens import Token
from shared.topics import Topics
from tests.npm import node_with_packages

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "asyncapi.yaml"
VALIDATOR = ROOT / "tests" / "asyncapi"
VALIDATE_DEADLINE_S = 60

MESSAGES: tuple[type[Payload], ...] = (GatewayInfo, Token, TokenRequest, TokenStatus, Receipt)
MODELS = {model.__name__: model for model in (*READINGS, *MESSAGES)}
STATUS_MESSAGES = {"GatewayStatus", "ServiceStatus"}
"""The messages whose payload is plain text."""

NOT_YET = re.compile(r"not published\s+yet\s+by\s+this\s+version", re.IGNORECASE)

CONTRACT: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
COMPONENTS = CONTRACT["components"]


class Example(NamedTuple):
    """A message's example, with the topic that its summary names."""

    message: str
    name: str
    topic: str
    payload: Any

    @property
    def json(self) -> bytes:
        """Return the payload as it is published."""
        return json.dumps(self.payload).encode()


EXAMPLES = [
    Example(message, example["name"], example["summary"], example["payload"])
    for message, description in COMPONENTS["messages"].items()
    for example in description["examples"]
]
JSON_EXAMPLES = [example for example in EXAMPLES if example.message not in STATUS_MESSAGES]


def example_id(example: Example) -> str:
    """Return the id of an example's test."""
    return f"{example.message}-{example.name}"


def messages_of(channel: Mapping[str, Any]) -> set[str]:
    """Return the names of the messages on a channel."""
    return {reference["$ref"].removeprefix("#/components/messages/") for reference in channel["messages"].values()}


def channel_of(topic: str) -> str:
    """Return the one channel whose address matches a topic below the base topic ``enphase``."""
    channels = []
    for name, channel in CONTRACT["channels"].items():
        levels = channel["address"].replace("{base}", "enphase").replace("{kind}", ".+")
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", levels), topic):
            channels.append(name)
    assert len(channels) == 1, f"{topic} is on {channels}"
    return str(channels[0])


# --- The document itself ---


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of node, with the validator's packages installed from its lock file."""
    return node_with_packages(VALIDATOR)


def validate(node: str, document: Path) -> subprocess.CompletedProcess[str]:
    """Return the result of @asyncapi/parser for a document."""
    command = [node, "validate.mjs", str(document)]
    return subprocess.run(
        command, cwd=VALIDATOR, capture_output=True, text=True, timeout=VALIDATE_DEADLINE_S, check=False
    )


@pytest.mark.npm
def test_the_contract_is_valid(node: str) -> None:
    """@asyncapi/parser finds neither errors nor warnings in the document."""
    result = validate(node, DOCUMENT)

    assert (result.returncode, result.stderr) == (0, ""), result.stdout


@pytest.mark.npm
@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ("asyncapi: 3.0.0", "asyncapi: 9.0.0", "asyncapi-is-asyncapi"),
        ("    action: send\n", "    action: shout\n", "asyncapi-document"),
        ('"#/components/schemas/Grid"', '"#/components/schemas/Net"', "invalid-ref"),
        ('      serial: {$ref: "#/components/parameters/serial"}\n', "", "asyncapi3-channel-parameters"),
        ("          type: number\n", "          type: watts\n", "asyncapi-document"),
        ("channels:\n", "channels\n", "parser"),
    ],
    ids=["version", "action", "reference", "parameter", "type", "yaml"],
)
def test_a_broken_contract_is_rejected(node: str, tmp_path: Path, right: str, wrong: str, code: str) -> None:
    """The validator reports each kind of error by its code, so a document without one is valid."""
    whole = DOCUMENT.read_text()
    assert right in whole
    broken = tmp_path / "broken.yaml"
    broken.write_text(whole.replace(right, wrong, 1))

    result = validate(node, broken)

    assert result.returncode == 1, result.stderr
    assert f"Error {code}" in result.stdout


def test_the_packages_that_validate_are_pinned_without_a_download_address() -> None:
    """The lock file has the hash of every package, and the address of none."""
    packages = json.loads((VALIDATOR / "package-lock.json").read_text())["packages"]

    dependencies = [package for path, package in packages.items() if path]
    assert dependencies
    assert all("integrity" in package and "resolved" not in package for package in dependencies)


def test_the_contract_has_the_version_of_the_project() -> None:
    """Document and project are released together."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert (CONTRACT["info"]["title"], CONTRACT["info"]["version"]) == (project["name"], project["version"])
    assert CONTRACT["info"]["license"]["name"] == project["license"]


def test_the_broker_is_described_as_the_services_connect_to_it() -> None:
    """Address, keepalive, session and will are the code's."""
    settings, broker = MqttSettings(), CONTRACT["servers"]["broker"]
    will_topic = Topics(settings.base_topic).service_status("{client_id}")

    assert broker["host"] == f"{settings.host}:{settings.port}"
    assert broker["bindings"]["mqtt"] == {
        "cleanSession": False,
        "keepAlive": KEEPALIVE_S,
        "sessionExpiryInterval": SESSION_EXPIRY_S,
        "lastWill": {"topic": will_topic, "qos": 1, "retain": True, "message": OFFLINE.decode()},
        "bindingVersion": "0.2.0",
    }


# --- Topics ---


def addresses_built() -> set[str]:
    """Return the topic that each builder of :class:`Topics` builds from the names of its arguments."""
    topics = Topics("{base}")
    addresses = {topics.reading("{serial}", kind_with_names(kind)) for kind in READINGS if kind is not Metrics}
    for name, builder in inspect.getmembers(Topics, inspect.isfunction):
        if name != "reading" and not name.startswith(("_", "all_", "parse_")):
            _, *arguments = inspect.signature(builder).parameters
            addresses.add(builder(topics, *(f"{{{argument}}}" for argument in arguments)))
    return addresses


def kind_with_names(reading_class: type[Reading]) -> str:
    """Return a kind in which the serial number of a battery has another name than the gateway's."""
    return reading_class.kind_template.replace("{serial}", f"{{{reading_class.__name__.lower()}}}")


def test_every_topic_that_the_code_builds_has_a_channel_and_the_other_way_round() -> None:
    """The channels' addresses are what Topics builds, a channel for each kind of reading."""
    built = addresses_built()

    assert sorted(channel["address"] for channel in CONTRACT["channels"].values()) == sorted(built)


def test_every_kind_of_reading_is_on_its_channel_and_on_history() -> None:
    """The message on a kind's channel is that of its class, and history carries all of them."""
    messages = {channel["address"]: messages_of(channel) for channel in CONTRACT["channels"].values()}
    topics, kinds = Topics("{base}"), [reading_class for reading_class in READINGS if reading_class is not Metrics]

    for kind in kinds:
        assert messages[topics.reading("{serial}", kind_with_names(kind))] == {kind.__name__}
    assert messages[topics.history("{serial}", "{kind}")] == {kind.__name__ for kind in kinds}
    assert messages[topics.metrics("{client_id}")] == {Metrics.__name__}


def test_every_channel_has_a_sender_and_a_receiver() -> None:
    """Each channel is used both ways, with QoS 1, and its sender sets whether it is retained."""
    uses: dict[str, list[str]] = {name: [] for name in CONTRACT["channels"]}
    for operation in CONTRACT["operations"].values():
        uses[operation["channel"]["$ref"].removeprefix("#/channels/")].append(operation["action"])
        binding = COMPONENTS["operationBindings"][operation["bindings"]["$ref"].rsplit("/", 1)[1]]["mqtt"]
        assert binding["qos"] == 1
        assert ("retain" in binding) == (operation["action"] == "send")
        assert {tag["name"] for tag in operation["tags"]} <= {tag["name"] for tag in CONTRACT["info"]["tags"]}

    assert {name: sorted(actions) for name, actions in uses.items()} == {name: ["receive", "send"] for name in uses}


@cache
def sources_of_services() -> str:
    """Return the source that creates messages: the services without the simulator, and two modules that they share."""
    folders = [folder for folder in sorted((ROOT / "services").iterdir()) if folder.name != "simulator"]
    services = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    shared = [ROOT / "shared" / name for name in ("metrics.py", "tokens.py")]
    return "\n".join(file.read_text() for file in [*services, *shared])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_payload_that_no_service_publishes_is_marked_so(model: type[Payload]) -> None:
    """The document promises nothing that this version does not do, and hides nothing that it does."""
    name = model.__name__
    is_created = re.search(rf"(?<!class )\b{name}(\.model_validate)?\(", sources_of_services()) is not None

    parts = [COMPONENTS["schemas"][name], COMPONENTS["messages"][name]]
    parts += [channel for channel in CONTRACT["channels"].values() if messages_of(channel) == {name}]

    assert [NOT_YET.search(part["description"]) is None for part in parts] == [is_created] * 3


# --- Payloads ---


def test_every_payload_has_a_schema_and_every_schema_a_payload() -> None:
    """Schemas and messages have the names of the models."""
    assert set(COMPONENTS["schemas"]) == set(MODELS)
    assert set(COMPONENTS["messages"]) == set(MODELS) | STATUS_MESSAGES
    for name in MODELS:
        assert COMPONENTS["messages"][name]["payload"] == {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_is_that_of_its_model(name: str) -> None:
    """Fields, which of them are required, types and bounds are equal, except for what is part of the topic."""
    model = MODELS[name]
    expected = normalised(model.model_json_schema(mode="serialization"))
    expected["properties"] = {
        field: schema for field, schema in expected["properties"].items() if field not in model.identity
    }
    expected["required"] = sorted(set(expected["required"]) - model.identity)
    if model is Metrics:
        # pydantic holds the names of extra fields to Name, and leaves that out of its JSON schema.
        expected["propertyNames"] = TypeAdapter(Name).json_schema()

    assert normalised(COMPONENTS["schemas"][name]) == expected


def normalised(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without its descriptions, in the one of its equivalent forms that AsyncAPI has.

    An optional field is left out of a payload and never null, although the model has None; a tuple of equal types is a
    list of that length; a secret field may be read by every subscriber that the topic's access rules allow.
    """
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case "title" | "description" | "default" | "writeOnly":
                pass
            case "anyOf":
                [alternative] = [each for each in value if each != {"type": "null"}]
                kept |= normalised(alternative)
            case "properties":
                kept[key] = {name: normalised(each) for name, each in value.items()}
            case "items" | "additionalProperties" | "propertyNames":
                kept[key] = normalised(value)
            case "prefixItems":
                assert all(each == value[0] for each in value)
                kept["items"] = normalised(value[0])
            case "required" | "enum":
                kept[key] = sorted(value)
            case _:
                kept[key] = value
    return kept


def test_every_field_is_described_with_its_unit() -> None:
    """Every number has a description with its unit."""
    units = {
        "w": "watts",
        "wh": "watt-hours",
        "va": "volt-amperes",
        "var": "volt-amperes reactive",
        "v": "volts",
        "a": "amperes",
        "hz": "hertz",
        "c": "degrees Celsius",
        "percent": "percent",
        "s": "seconds",
        "timestamp": "epoch seconds",
        "at": "epoch seconds",
        "left": "days",
    }
    for model, name, field in fields_with_schemas():
        description = field.get("description", "")
        assert description, f"{model}.{name}"
        unit = units.get(name.rsplit("_", 1)[-1], "")
        assert unit in description, f"{model}.{name} is in {unit}"


def fields_with_schemas() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each field of each schema."""
    for model, schema in COMPONENTS["schemas"].items():
        for name, field in schema["properties"].items():
            yield model, name, field


def test_every_message_has_an_example() -> None:
    """Every message and every channel has an example."""
    assert {example.message for example in EXAMPLES} == set(COMPONENTS["messages"])
    assert {channel_of(example.topic) for example in EXAMPLES} == set(CONTRACT["channels"])


@pytest.mark.parametrize("example", EXAMPLES, ids=example_id)
def test_an_example_is_on_a_channel_that_carries_its_message(example: Example) -> None:
    """An example's topic is an address of a channel of its message."""
    assert example.message in messages_of(CONTRACT["channels"][channel_of(example.topic)])


@pytest.mark.parametrize("example", JSON_EXAMPLES, ids=example_id)
def test_an_example_is_a_payload_that_the_code_would_publish(example: Example) -> None:
    """An example that is parsed and published again is the same, to the last key."""
    payload = read(example)

    assert isinstance(payload, MODELS[example.message])
    assert json.loads(payload.to_json()) == example.payload


@pytest.mark.parametrize("example", JSON_EXAMPLES, ids=example_id)
def test_an_example_without_a_required_field_is_rejected(example: Example) -> None:
    """The code requires each field that the document requires."""
    for field in COMPONENTS["schemas"][example.message]["required"]:
        without = {name: value for name, value in example.payload.items() if name != field}
        with pytest.raises(InvalidPayload, match=field):
            read(example._replace(payload=without))


def read(example: Example) -> Payload:
    """Return an example as the services parse it."""
    model = MODELS[example.message]
    if not issubclass(model, Reading):
        return model.from_json(example.json)
    return reading_from_json(Topics("enphase").parse_reading(example.topic).kind, example.json)


def test_a_token_request_is_parsed_from_the_topic_of_its_example() -> None:
    """The topic of a request names the gateway."""
    [request] = [example for example in EXAMPLES if example.message == "TokenRequest"]

    assert Topics("enphase").parse_token_request(request.topic) == "122098765432"


@pytest.mark.parametrize("name", sorted(STATUS_MESSAGES))
def test_a_status_is_one_of_the_two_words(name: str) -> None:
    """Both status topics carry online or offline as plain text."""
    message = COMPONENTS["messages"][name]

    assert message["contentType"] == "text/plain"
    assert message["payload"]["enum"] == [ONLINE.decode(), OFFLINE.decode()]
    assert [example["payload"] for example in message["examples"]] == [ONLINE.decode(), OFFLINE.decode()]
