"""Many gateways with the responses of one simulated gateway: ``python -m benchmarks.many_gateways <count>``.

Each has a port and a serial number of its own; all use TLS and accept any token. Only the meters' times move. It prints
``ready`` and then a JSON object of addresses by serial number.
"""

import asyncio
import json
import re
import signal
import ssl
import sys
import tempfile
import time
from pathlib import Path

from services.simulator.envoy_responses import envoy_response
from services.simulator.keys import load_or_create_tls
from tests.programs import HOST, simulator

PATHS = (
    "/info",
    "/api/v1/production",
    "/production.json",
    "/ivp/meters",
    "/ivp/meters/readings",
    "/ivp/pdm/device_data",
    "/ivp/ensemble/inventory",
)


def responses(folder: Path) -> dict[str, bytes]:
    """Return what a simulated gateway responds to each path."""
    with simulator(folder) as roof:
        assert roof.gateway is not None
        model, state = roof.gateway.model, roof.gateway.state()
        return {path: envoy_response(model, state, path, "").body for path in PATHS}


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def serve(count: int, bodies: dict[str, bytes], tls: ssl.SSLContext) -> None:
    """Serve until killed."""
    urls = {}
    for number in range(count):
        serial = f"122000{number:06d}"
        info = re.sub(rb"<sn>\d+</sn>", f"<sn>{serial}</sn>".encode(), bodies["/info"])
        own = bodies | {"/info": info}

        async def respond(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: dict[str, bytes] = own
        ) -> None:
            while line := await _line(reader):
                while await _line(reader) not in (b"\r\n", b""):
                    pass
                path = line.split(b" ")[1].decode() if line.count(b" ") == 2 else ""  # noqa: PLR2004 - GET path HTTP
                body = own.get(path)
                if body is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                now = str(int(time.time())).encode()
                body = re.sub(rb'("timestamp":|<time>)\d+', rb"\g<1>" + now, body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            writer.close()

        server = await asyncio.start_server(respond, HOST, 0, ssl=tls, backlog=16)
        urls[serial] = f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
    print("ready", json.dumps(urls), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Make the responses and serve them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as an exception, so that the folder is removed
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        tls = load_or_create_tls(state / "gateways.pem", "122000000000")
        asyncio.run(serve(int(sys.argv[1]), responses(state), tls))


if __name__ == "__main__":
    main()
