"""``poller --check``: each gateway, its certificate and clock, what it accepts and measures, and the broker."""

import time
from collections.abc import Iterator

from services.poller.certificates import describe_expiry
from services.poller.clock import GatewayClock, describe_offset
from services.poller.endpoints import INVERTERS
from services.poller.errors import GatewayError, GatewayUntrusted
from services.poller.once import Result, read_once
from services.poller.reader import GatewayReader
from services.poller.session import Session
from services.poller.settings import EnvoySettings, PollerSettings
from services.poller.trust import TrustStore
from shared.checks import CheckResult
from shared.mqtt_check import check_broker
from shared.topics import Topics

KINDS = ("production", "consumption", "grid", "battery", "inverter", "energy")


def run_checks(settings: PollerSettings, trust: TrustStore) -> Iterator[CheckResult]:
    """Yield the result of each check of each gateway, then of the broker."""
    for gateway in settings.gateways:
        yield from _check_gateway(gateway, settings, trust)
    yield check_broker(settings.mqtt, Topics(settings.mqtt.base_topic).info("0"))


def _check_gateway(gateway: EnvoySettings, settings: PollerSettings, trust: TrustStore) -> Iterator[CheckResult]:
    session = Session(gateway, trust)
    try:
        identity = session.find()
    except GatewayUntrusted as error:
        yield CheckResult(ok=False, what=f"gateway at {gateway.host}", text=str(error))
        return
    except GatewayError as error:
        text = f"{error}; is ENVOY_HOST right, and is the gateway in this network?"
        yield CheckResult(ok=False, what=f"gateway at {gateway.host}", text=text)
        return
    text = f"found at {session.envoy.base_url}, firmware {identity.firmware}"
    yield CheckResult(ok=True, what=f"gateway {identity.serial}", text=text)
    yield CheckResult(ok=True, what="certificate", text=_certificate(session, gateway, trust))
    yield _clock(session.clock)
    result = read_once(session, settings.mqtt)
    if result.reader is not None and result.credential is not None:
        yield CheckResult(ok=True, what="authentication", text=f"the gateway accepts {result.credential.name}")
        yield from _measured(result, result.reader)
    else:
        what = "authentication" if result.credential is None else f"gateway {identity.serial}"
        yield CheckResult(ok=False, what=what, text=result.error)


def _certificate(session: Session, gateway: EnvoySettings, trust: TrustStore) -> str:
    certificate = session.certificate
    if certificate is None or session.identity is None:
        return "none: the gateway uses plain HTTP, as firmware before 7 does"
    source = "ENVOY_CERT_FINGERPRINT" if gateway.cert_fingerprint else str(trust.pin_path(session.identity.serial))
    expiry = describe_expiry(certificate, time.time())
    return f"SHA-256 {certificate.fingerprint}, pinned by {source}; {expiry}"


def _clock(clock: GatewayClock) -> CheckResult:
    offset_s = clock.offset_s
    if offset_s is None:
        return CheckResult(ok=True, what="clock", text="agrees with ours")
    if clock.correction_s:
        text = f"{describe_offset(offset_s)}; the times of its readings are corrected; can it reach the internet?"
        return CheckResult(ok=True, what="clock", text=text)
    text = f"{describe_offset(offset_s)}; its times are kept, because either clock may be wrong; set both"
    return CheckResult(ok=False, what="clock", text=text)


def _measured(result: Result, reader: GatewayReader) -> Iterator[CheckResult]:
    """Yield what is measured, by which source, and which endpoints are not used."""
    kinds = [reading.kind for reading in result.readings]
    sources = dict(source.split("=") for source in reader.info.sources)
    for kind in KINDS:
        count = sum(each.startswith(f"{kind}/") for each in kinds)
        if count or kind in kinds:
            source = f" by the {sources[kind]}" if kind in sources else ""
            yield CheckResult(ok=True, what=kind, text=f"measured{source}" + (f", {count} of them" if count else ""))
        else:
            # Only a house without any production has a fault.
            yield CheckResult(ok=kind != "production", what=kind, text=f"not measured: {_why_not(kind, reader)}")
    meters = sorted({each.split("/")[1] for each in kinds if each.startswith("meter/")})
    yield CheckResult(ok=True, what="meters", text=", ".join(meters) or "none with transformers fitted and enabled")
    unused = [
        f"{endpoint.path} {health.outcome}" for endpoint, health in reader.agenda.health.items() if health.outcome
    ]
    if unused:
        yield CheckResult(ok=True, what="unused endpoints", text="; ".join(unused))


def _why_not(kind: str, reader: GatewayReader) -> str:
    match kind:
        case "production":
            return "neither meter nor inverters responded; has the gateway just started?"
        case "consumption" | "grid":
            return "no transformer for it is fitted and enabled"
        case "battery":
            return "there is none, or the gateway does not list it"
        case "inverter":
            outcome = reader.agenda.health[INVERTERS].outcome
            return f"the list of inverters {outcome or 'has no report'}"
    return "the gateway's counters of the day are known to be wrong"
