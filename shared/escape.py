"""Text from outside, made safe to print: one line stays one line, and no terminal acts on it.

Gateways, MQTT clients and servers choose names and messages. Printed as they are, ``ESC ]`` sets a terminal's title,
a line break forges a log line, and U+202E reverses the direction of writing.
"""

import re

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, line separators, characters that are invisible or change the direction, lone surrogates."""


def escape(text: str) -> str:
    r"""Return a text as one line of printable characters: an escape character becomes ``\x1b``."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
