"""paho's client, with what it lacks; the only module that uses its private fields or works around its faults.

``tests/unit/shared/test_paho_client.py`` fails if a new version of paho changes what is relied on here (2.2.0).
"""

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties


class NotResent(Properties):
    """The properties of a publication that paho must not resend after a reconnect; on the wire as any others."""


class PahoClient(Client):
    """A client that reports why it cannot connect and when its network thread fails, and can give publications back."""

    on_network_thread_error: Callable[[Exception], None]
    """Called in the network thread before it ends."""

    connect_error: OSError | None = None
    """Why the last attempt to connect failed; paho does not pass it to ``on_connect_fail``."""

    def loop_forever(self, *arguments: Any, **keywords: Any) -> MQTTErrorCode:
        """Run the network thread; paho ends it silently on an exception, and ``is_connected()`` stays true for ever.

        Malformed packets do that, among others: eclipse-paho/paho.mqtt.python#867.
        """
        try:
            return super().loop_forever(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - any exception ends the thread
            self.on_network_thread_error(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN

    def reconnect(self) -> MQTTErrorCode:
        """Connect once and keep the reason of a failure."""
        try:
            return super().reconnect()
        except OSError as error:
            self.connect_error = error
            raise

    def remove_not_resent(self) -> list[int]:
        """Remove the publications with :class:`NotResent` from paho's queue and return their packet identifiers.

        Call it from ``on_pre_connect``: then paho counts none of them as inflight.
        """
        with self._out_message_mutex:
            removed = [
                packet_id
                for packet_id, message in self._out_messages.items()
                if isinstance(message.properties, NotResent)
            ]
            for packet_id in removed:
                del self._out_messages[packet_id]
        return removed


def new_properties(packet_type: int, *, resend: bool = True) -> Properties:
    """Return empty properties of a packet, of the class :class:`NotResent` if it must not be resent."""
    return (Properties if resend else NotResent)(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it untyped
