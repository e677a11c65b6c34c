"""A TLS handshake between a server with a certificate and a client that verifies it."""

import socket
import ssl
import threading
from pathlib import Path


def shake_hands(certificate: Path, key: Path, authority: Path, name: str) -> None:
    """Connect to a server as a strict client that trusts the authority and expects the name.

    Raises:
        ssl.SSLError: the client rejects the certificate.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client_end, server_end = socket.socketpair()

    def serve() -> None:
        with server_end:
            try:
                server.wrap_socket(server_end, server_side=True).close()
            except ssl.SSLError:
                return

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        client.wrap_socket(client_end, server_hostname=name).close()
    finally:
        client_end.close()
        serving.join()
