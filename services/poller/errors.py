"""What can go wrong with a gateway, by what the caller must do.

::

    GatewayError
    ├── GatewayUnavailable     retry later, not before ``retry_after_s``
    │   └── GatewayUntrusted       and report it: a person must decide; it was sent no credential
    ├── TokenRejected          authenticate with another credential
    ├── EndpointMissing        this gateway has no such endpoint: fetch it less often
    └── BadResponse            ignore this response
        └── EndpointBroken         a server error; another time it may work
"""


class GatewayError(Exception):
    """The gateway did not give the response that was requested."""


class GatewayUnavailable(GatewayError):
    """The gateway did not respond, or responded that it is busy."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GatewayUntrusted(GatewayUnavailable):
    """It cannot be verified that this is the gateway whose certificate is pinned; it was sent no credential."""


class TokenRejected(GatewayError):
    """The gateway rejected the token, or the user name and password, with 401 or 403."""


class EndpointMissing(GatewayError):
    """The gateway has no such endpoint: 404, a redirect, or another status below 500."""


class BadResponse(GatewayError):
    """The response is not what the endpoint promises: an HTML page, truncated JSON, another gateway's ``/info``."""


class EndpointBroken(BadResponse):
    """The gateway reported a server error: a status of 500 or above, other than 503."""
