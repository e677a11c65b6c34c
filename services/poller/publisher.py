"""Publishes what is retained of a gateway, when it changes: ``info``, ``status``; and requests tokens."""

import logging
import time
from collections.abc import Callable
from typing import Literal

from shared.messages import OFFLINE, ONLINE, GatewayInfo, TokenRequest
from shared.mqtt import Connection

logger = logging.getLogger(__name__)

TOKEN_REQUEST_INTERVAL_S = 300.0
RETAINED_TOKEN_TIMEOUT_S = 2.0
"""A retained token arrives at once; if there is none by then, one is requested."""


class GatewayPublisher:
    """The messages of one gateway other than its readings."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.time) -> None:
        """Prepare to publish.

        Args:
            connection: to the broker.
            clock: epoch seconds.
        """
        self.online: bool | None = None
        """Whether the gateway responds; None until it is known."""
        self._connection = connection
        self._clock = clock
        self._info: GatewayInfo | None = None
        self._token_request_at = 0.0

    def publish_info(self, info: GatewayInfo) -> None:
        """Publish what the gateway is, if that changed."""
        if info != self._info:
            self._info = info
            self._connection.publish(self._connection.topics.info(info.serial), info.to_json(), retain=True)

    def publish_status(self, *, online: bool) -> None:
        """Publish whether the gateway responds, if that changed; its topic is not known before it was found."""
        if self._info is None or online == self.online:
            return
        if online and self.online is False:
            logger.info("gateway %s responds again", self._info.serial)
        self.online = online
        topic = self._connection.topics.gateway_status(self._info.serial)
        self._connection.publish(topic, ONLINE if online else OFFLINE, retain=True, content_type=None)

    def republish(self) -> None:
        """Publish everything once more: the broker may have lost what it retained."""
        info, self._info = self._info, None
        online, self.online = self.online, None
        if info is not None:
            self.publish_info(info)
        if online is not None:
            self.publish_status(online=online)

    def expect_retained_token(self, now: float) -> None:
        """Request no token for a moment: a retained one may arrive."""
        self._token_request_at = now + RETAINED_TOKEN_TIMEOUT_S

    def token_request_is_due(self, now: float) -> bool:
        """Return whether a missing token should be requested now."""
        return now >= self._token_request_at

    def request_token(self, serial: str, reason: Literal["missing", "rejected"], why: str) -> None:
        """Request a token, and none again for five minutes."""
        self._token_request_at = time.monotonic() + TOKEN_REQUEST_INTERVAL_S
        logger.warning("gateway %s: waiting for a token: %s", serial, why)
        request = TokenRequest.model_validate({"reason": reason, "requested_at": int(self._clock())})
        self._connection.publish(self._connection.topics.token_request(serial), request.to_json())
