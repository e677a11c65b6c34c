"""What ``poller --check`` finds: the gateway, its certificate and clock, what opens it, and what it measures."""

from collections.abc import Iterator

from services.poller.access import no_token, not_accepted, show_what_opens
from services.poller.certificates import PinStore
from services.poller.clock import told
from services.poller.envoy import CertificateChanged, Envoy, GatewayError, Identity, TokenRejected
from services.poller.reader import GatewayReader
from services.poller.settings import EnvoySettings, PollerSettings
from shared.checks import CheckResult
from shared.mqtt_check import check_broker
from shared.readings import Reading
from shared.topics import Topics

MEASURED = ("production", "consumption", "grid", "battery", "inverter", "energy")


def run_checks(settings: PollerSettings, pins: PinStore) -> Iterator[CheckResult]:
    """Yield how each gateway fares, step by step, and the broker."""
    for gateway in settings.gateways:
        yield from _check_gateway(gateway, settings, pins)
    yield check_broker(settings.mqtt, Topics(settings.mqtt.base_topic).info("0"))


def _check_gateway(gateway: EnvoySettings, settings: PollerSettings, pins: PinStore) -> Iterator[CheckResult]:
    envoy = Envoy(gateway, pins)
    try:
        identity = envoy.find()
    except CertificateChanged as error:
        yield CheckResult(ok=False, what=f"certificate of {gateway.host}", text=str(error))
        return
    except GatewayError as error:
        text = f"{error}; is ENVOY_HOST right, and is the gateway in this network?"
        yield CheckResult(ok=False, what=f"gateway at {gateway.host}", text=text)
        return
    what = f"gateway {identity.serial}"
    yield CheckResult(ok=True, what=what, text=f"found at {envoy.base_url}, firmware {identity.firmware}")
    yield CheckResult(ok=True, what="certificate", text=_certificate(envoy, identity, gateway, pins))
    yield _clock(envoy)
    opens = show_what_opens(envoy, identity, gateway, settings.mqtt)
    if opens is None:
        yield CheckResult(ok=False, what="access", text=no_token(identity))
        return
    reader = GatewayReader(envoy, identity)
    try:
        readings = reader.read(only_once=True)
    except TokenRejected as error:
        yield CheckResult(ok=False, what="access", text=f"{error}; {not_accepted(identity, opens)}")
        return
    except GatewayError as error:
        yield CheckResult(ok=False, what=what, text=f"{error}; is it starting up, or asked by too many?")
        return
    yield CheckResult(ok=True, what="access", text=f"it accepts {opens}")
    yield from _measured(reader, readings)


def _certificate(envoy: Envoy, identity: Identity, gateway: EnvoySettings, pins: PinStore) -> str:
    if envoy.fingerprint is None:
        return "none, it speaks plain HTTP, as firmware before 7 does"
    pinned = (
        "as ENVOY_CERT_FINGERPRINT says" if gateway.cert_fingerprint else f"as kept in {pins.path(identity.serial)}"
    )
    return f"SHA-256 {envoy.fingerprint}, {pinned}; another will be refused"


def _clock(envoy: Envoy) -> CheckResult:
    offset_s = envoy.clock.offset_s
    if offset_s is None:
        return CheckResult(ok=True, what="clock", text="agrees with ours")
    if envoy.clock.correction_s:
        text = f"{told(offset_s)}; the times of its readings are corrected. Does it reach the internet?"
        return CheckResult(ok=True, what="clock", text=text)
    text = f"{told(offset_s)}; its times are kept, as it cannot be known which is wrong. Set both"
    return CheckResult(ok=False, what="clock", text=text)


def _measured(reader: GatewayReader, readings: list[Reading]) -> Iterator[CheckResult]:
    kinds = [reading.kind for reading in readings]
    sources = dict(source.split("=") for source in reader.info.sources)
    for kind in MEASURED:
        count = sum(each.startswith(f"{kind}/") for each in kinds)
        if count or kind in kinds:
            source = f" by the {sources[kind]}" if kind in sources else ""
            yield CheckResult(ok=True, what=kind, text=f"measured{source}" + (f", {count} of them" if count else ""))
        else:
            # Nothing to mend: a house has what it has.
            yield CheckResult(ok=kind != "production", what=kind, text=f"not measured: {_why_not(kind, reader)}")
    meters = sorted({each.split("/")[1] for each in kinds if each.startswith("meter/")})
    text = ", ".join(meters) or "none whose transformers are fitted and enabled"
    yield CheckResult(ok=True, what="meters", text=text)
    passed_over = [f"{path} {outcome}" for path, outcome in reader.outcomes().items()]
    if passed_over:
        yield CheckResult(ok=True, what="passed over", text="; ".join(passed_over))


def _why_not(kind: str, reader: GatewayReader) -> str:
    match kind:
        case "production":
            return "neither meter nor inverters have told anything; has the gateway just started?"
        case "consumption" | "grid":
            return "no transformer for it is fitted and enabled"
        case "battery":
            return "there is none, or the gateway does not show it"
        case "inverter":
            outcomes = reader.outcomes()
            return f"the list of inverters {outcomes.get('/api/v1/production/inverters', 'was not asked for')}"
    return "what the gateway counts of the day is known to be wrong"
