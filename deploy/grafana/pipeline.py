"""*Pipeline*: whether readings are delivered, and what fails."""

from typing import Any

from deploy.grafana.dashboard import BAD, GOOD, WARNING, Dashboard, Panel, bars, fixed_colour, lines, stat, thresholds
from deploy.grafana.series import HOUR, MINUTE_SLOTS, alias, gateway_metric, increase, service_metric, without_newest

CLIENT_ID_NODE, METRIC_NODE = -3, -1
"""Positions in a path from its end: ``….services.<client-id>.metrics.<name>``."""

ERRORS = (
    "requests_failed",
    "polls_missed",
    "fields_dropped",
    "counters_rejected",
    "readings_resent",
    "readings_expired",
    "readings_not_journaled",
    "points_resent",
    "invalid_messages",
    "logins_failed",
)

READING = gateway_metric("production.power_w")
POLLERS = "poller*"
SLOT_S = 10
AGE_S = (
    f"diffSeries(timeFunction('now', {SLOT_S}), "
    f"keepLastValue(multiplySeries(timeFunction('now', {SLOT_S}), pow({READING}, 0))))"
)
"""The time minus the time of the newest reading until then; any value to the power of 0 is 1."""

EMPTY_SLOTS = f"offset(scale(summarize(isNonNull({READING}), '5min', 'max'), -1), 1)"
EMPTY_MINUTES = f"scale({without_newest(EMPTY_SLOTS, '6min')}, 5)"

ANY_ERROR = service_metric(f"{{{','.join(ERRORS)}}}")

BY_AGE = thresholds(GOOD, (120, WARNING), (600, BAD))


def _by_service(series: str) -> str:
    return f"aliasByNode({series}, {CLIENT_ID_NODE})"


def _by_service_and_metric(series: str) -> str:
    return f"aliasByNode({series}, {CLIENT_ID_NODE}, {METRIC_NODE})"


def _per_minute(name: str, metric: str) -> str:
    increases = f"summarize({increase(metric, MINUTE_SLOTS)}, '1min', 'sum')"
    return alias(name, without_newest(f"sumSeries({increases})", "2min"))


def _newest(title: str, description: str, targets: list[str], **more: Any) -> Panel:
    return stat(title, description, targets, "lastNotNull", width=6, height=4, time_from="6h", **more)


PIPELINE = Dashboard(
    uid="pipeline",
    title="Pipeline",
    description="Whether readings are delivered from the gateway to Graphite, and what fails.",
    time_from="now-6h",
    panels=[
        _newest(
            "Age of the newest reading",
            "Time since the newest stored reading was taken. Normal: 10 to 20 seconds.",
            [alias("Age", AGE_S)],
            unit="s",
            no_value="more than 6 h",
            defaults=BY_AGE,
        ),
        stat(
            "Time without readings today",
            "Minutes since midnight without a production reading, in steps of five. Normal: 0. The energy of this time "
            "is not lost: see Solar Energy.",
            [alias("Minutes", EMPTY_MINUTES)],
            "sum",
            width=6,
            height=4,
            time_from="now/d",
            unit="m",
            defaults={"decimals": 0, **thresholds(GOOD, (5, WARNING), (60, BAD))},
        ),
        _newest(
            "Token expires in",
            "Days until the first token expires. An owner's token is renewed thirty days before; an installer's, which "
            "is valid for twelve hours, one hour before. 0: a token is missing.",
            [alias("Days", f"minSeries({service_metric('token_days_left')})")],
            unit="suffix: days",
            no_value="no token required",
            defaults={"decimals": 1, **thresholds(BAD, (0.05, WARNING), (14, GOOD))},
        ),
        _newest(
            "Gateways",
            "Number of gateways that respond, and of all gateways.",
            [
                alias("online", f"sumSeries({service_metric('gateways_online')})"),
                alias("all", f"sumSeries({service_metric('gateways', POLLERS)})"),
            ],
            defaults={"decimals": 0},
        ),
        lines(
            "Readings per minute",
            "Readings taken from the gateway and written to the journal, delivered to Carbon, and receipted, which "
            "means stored permanently. On average all three are equal.",
            [
                _per_minute("taken", service_metric("readings_taken")),
                _per_minute("delivered", service_metric("readings_delivered")),
                _per_minute("receipted", service_metric("readings_receipted", POLLERS)),
            ],
            width=12,
            defaults={"min": 0},
        ),
        lines(
            "Age of the newest reading, over time",
            "Time since the newest stored reading, at each moment. It rises during an outage, unless readings of that "
            "time arrive later.",
            [alias("Age", AGE_S)],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        lines(
            "Journal and queues",
            "Readings in a journal, which wait for their receipt, and points that the sink has sent to Carbon and not "
            "yet receipted. Normal: both are constant.",
            [
                _by_service_and_metric(service_metric("journal_rows")),
                _by_service_and_metric(service_metric("points_unsettled")),
            ],
            width=12,
            defaults={"min": 0},
        ),
        lines(
            "Age of the oldest reading without a receipt",
            "Normal: half a minute, because the sink waits until Carbon has written.",
            [_by_service(service_metric("oldest_unreceipted_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        bars(
            "Errors by hour",
            "Errors since the beginning of each hour; docs/asyncapi.yaml explains the names. A resent reading is not "
            "lost: it was resent because it could have been.",
            [
                _by_service_and_metric(
                    f"maximumAbove(summarize({increase(ANY_ERROR, MINUTE_SLOTS)}, '{HOUR}', 'sum'), 0)"
                )
            ],
            width=12,
            no_value="none",
            defaults={"decimals": 0},
            custom={"stacking": {"mode": "normal", "group": "A"}},
        ),
        bars(
            "Time without readings by hour",
            "Minutes of each hour without a production reading, in steps of five.",
            [alias("Minutes", f"summarize({EMPTY_MINUTES}, '{HOUR}', 'sum')")],
            width=12,
            unit="m",
            defaults={"min": 0, "decimals": 0, "color": fixed_colour(BAD)},
        ),
        lines(
            "Poll duration",
            "Duration of the newest poll of the slowest gateway.",
            [_by_service(service_metric("poll_duration_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        lines(
            "Clock offset",
            "The largest offset of a gateway's clock. The poller corrects it; the clock of a gateway without Internet "
            "access drifts.",
            [_by_service(service_metric("clock_offset_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
    ],
)
