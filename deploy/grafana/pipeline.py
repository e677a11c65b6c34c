"""*Pipeline*: whether readings flow, and what stands in their way."""

from typing import Any

from deploy.grafana.dashboard import BAD, GOOD, NOTICE, Dashboard, Panel, bars, fixed, lines, stat, thresholds
from deploy.grafana.series import A_MINUTE, HOUR, counted, named, of_the_gateway, of_the_services, until

CLIENT_ID, METRIC = -3, -1
"""Counted from the end of the path: ``….services.<client-id>.metrics.<name>``."""

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

READING = of_the_gateway("production.power_w")
POLLERS = "poller*"
SLOT_S = 10
AGE_S = (
    f"diffSeries(timeFunction('now', {SLOT_S}), "
    f"keepLastValue(multiplySeries(timeFunction('now', {SLOT_S}), pow({READING}, 0))))"
)
"""The time less the newest time that has a reading: a number to the power of 0 is 1."""

EMPTY_SLOTS = f"offset(scale(summarize(isNonNull({READING}), '5min', 'max'), -1), 1)"
MINUTES_WITHOUT = f"scale({until(EMPTY_SLOTS, '6min')}, 5)"

ANY_ERROR = of_the_services(f"{{{','.join(ERRORS)}}}")

READINGS_FLOW = thresholds(GOOD, (120, NOTICE), (600, BAD))


def _by_service(series: str) -> str:
    return f"aliasByNode({series}, {CLIENT_ID})"


def _by_service_and_metric(series: str) -> str:
    return f"aliasByNode({series}, {CLIENT_ID}, {METRIC})"


def _gained(metric: str) -> str:
    return until(f"sumSeries(summarize({counted(metric, A_MINUTE)}, '1min', 'sum'))", "2min")


def _every_minute(name: str, metric: str) -> str:
    return named(name, _gained(of_the_services(metric)))


def _newest(title: str, description: str, targets: list[str], **more: Any) -> Panel:
    return stat(title, description, targets, "lastNotNull", width=6, height=4, time_from="6h", **more)


PIPELINE = Dashboard(
    uid="pipeline",
    title="Pipeline",
    description="Whether readings flow from the gateway into Graphite, and what stands in their way.",
    time_from="now-6h",
    panels=[
        _newest(
            "Age of the newest reading",
            "How long ago the gateway was last read and the reading stored. Some ten seconds is usual.",
            [named("Age", AGE_S)],
            unit="s",
            no_value="more than 6 h",
            defaults=READINGS_FLOW,
        ),
        stat(
            "Without a reading today",
            "Minutes since midnight without a reading of the production, in steps of five; 0 is usual. The energy "
            "counted meanwhile is not lost: see Solar Energy.",
            [named("Minutes", MINUTES_WITHOUT)],
            "sum",
            width=6,
            height=4,
            time_from="now/d",
            unit="m",
            defaults={"decimals": 0, **thresholds(GOOD, (5, NOTICE), (60, BAD))},
        ),
        _newest(
            "Token is good for",
            "Days until the first of the tokens ends. An owner's is renewed thirty days before; an installer's, good "
            "for half a day, an hour before. 0: a token is missing.",
            [named("Days", f"minSeries({of_the_services('token_days_left')})")],
            unit="suffix: days",
            no_value="no token is needed",
            defaults={"decimals": 1, **thresholds(BAD, (0.05, NOTICE), (14, GOOD))},
        ),
        _newest(
            "Gateways",
            "How many answer, of how many there are.",
            [
                named("answer", f"sumSeries({of_the_services('gateways_online')})"),
                named("of", f"sumSeries({of_the_services('gateways', POLLERS)})"),
            ],
            defaults={"decimals": 0},
        ),
        lines(
            "Readings per minute",
            "Taken from the gateway and put into the journal, delivered to Carbon, and receipted: stored for good. "
            "In the long run all three are equal.",
            [
                _every_minute("taken", "readings_taken"),
                _every_minute("delivered", "readings_delivered"),
                named("receipted", _gained(of_the_services("readings_receipted", POLLERS))),
            ],
            width=12,
            defaults={"min": 0},
        ),
        lines(
            "Age of the newest reading, over time",
            "How long ago, at each moment, the newest reading was. A slope is an outage, unless readings come late and "
            "fill it.",
            [named("Age", AGE_S)],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        lines(
            "Journal and queues",
            "Readings in a journal, which wait for their receipt; numbers that the sink has sent to Carbon and not yet "
            "receipted. Both stay level while all is well.",
            [
                _by_service_and_metric(of_the_services("journal_rows")),
                _by_service_and_metric(of_the_services("points_unsettled")),
            ],
            width=12,
            defaults={"min": 0},
        ),
        lines(
            "Age of the oldest reading without a receipt",
            "About half a minute is usual: the sink waits until Carbon must have written.",
            [_by_service(of_the_services("oldest_unreceipted_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        bars(
            "Errors by kind, hour by hour",
            "What went wrong since the hour began; docs/asyncapi.yaml explains the names. Sent again is not lost: it "
            "is how nothing gets lost.",
            [_by_service_and_metric(f"maximumAbove(summarize({counted(ANY_ERROR, A_MINUTE)}, '{HOUR}', 'sum'), 0)")],
            width=12,
            no_value="none",
            defaults={"decimals": 0},
            custom={"stacking": {"mode": "normal", "group": "A"}},
        ),
        bars(
            "Without a reading, hour by hour",
            "Minutes of each hour without a reading of the production, in steps of five.",
            [named("Minutes", f"summarize({MINUTES_WITHOUT}, '{HOUR}', 'sum')")],
            width=12,
            unit="m",
            defaults={"min": 0, "decimals": 0, "color": fixed(BAD)},
        ),
        lines(
            "How long a poll takes",
            "The slowest gateway's newest poll.",
            [_by_service(of_the_services("poll_duration_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
        lines(
            "How wrong the gateway's clock is",
            "The worst of all gateways. The poller corrects it; a clock that goes astray is that of a gateway without "
            "Internet.",
            [_by_service(of_the_services("clock_offset_s"))],
            width=12,
            unit="s",
            defaults={"min": 0},
        ),
    ],
)
