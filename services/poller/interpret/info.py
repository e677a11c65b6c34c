"""Info: what a gateway is, how many phases it meters, and where its numbers come from."""

from services.poller.interpret.grid import net_is_computed
from services.poller.snapshot import NET_CONSUMPTION, PRODUCTION, STORAGE, TOTAL_CONSUMPTION, Site, counters_of
from shared.messages import GatewayInfo


def interpret_info(site: Site, clock_offset_s: int | None = None) -> GatewayInfo:
    """Return what is published of a gateway."""
    return GatewayInfo(
        serial=site.identity.serial,
        part_number=site.identity.part_number,
        firmware=site.identity.firmware,
        metered=bool(site.enabled_meters),
        phases=max((details.phaseCount for details in site.enabled_meters), default=None),
        sources=_sources(site),
        clock_offset_s=clock_offset_s,
    )


def _sources(site: Site) -> tuple[str, ...]:
    enabled, counters = site.enabled_types, counters_of(site.production_json)
    sources = [f"production={site.production_source}"] if site.production_source else []
    if {PRODUCTION, NET_CONSUMPTION} <= enabled or TOTAL_CONSUMPTION in enabled or TOTAL_CONSUMPTION in counters:
        sources.append("consumption=meter")
    if NET_CONSUMPTION in enabled or (NET_CONSUMPTION in counters and not net_is_computed(enabled)):
        sources.append("grid=meter")
    if STORAGE in enabled:
        sources.append("battery=meter")
    elif site.has_any_batteries:
        sources.append("battery=batteries")
    return tuple(sources)
