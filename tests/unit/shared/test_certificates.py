"""Certificates that strict clients accept, under the names that they were created for and no others."""

import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.certificates import ServerCertificate, create_self_signed, create_with_authority
from tests.handshake import shake_hands
from tests.programs import ROOT

NAMES = ("envoy.local", "192.0.2.1", "::1")


def self_signed() -> ServerCertificate:
    """Return a certificate that is its own authority."""
    return create_self_signed("122000000000", NAMES)


def with_authority() -> ServerCertificate:
    """Return a certificate with an authority of its own."""
    return create_with_authority(NAMES)


Create = Callable[[], ServerCertificate]
each_kind = pytest.mark.parametrize("create", [self_signed, with_authority])


def verify(created: ServerCertificate, authority: str, name: str, folder: Path) -> None:
    """Connect as a client that trusts the authority and expects the name. Raises ssl.SSLError."""
    for file, text in {"crt": created.certificate, "key": created.key, "ca": authority}.items():
        (folder / file).write_text(text)
    shake_hands(folder / "crt", folder / "key", folder / "ca", name)


@each_kind
@pytest.mark.parametrize("name", NAMES)
def test_a_strict_client_accepts_each_name(create: Create, name: str, tmp_path: Path) -> None:
    """Host names and addresses of both families."""
    created = create()

    verify(created, created.authority, name, tmp_path)


@each_kind
def test_another_name_is_rejected(create: Create, tmp_path: Path) -> None:
    """The certificate is for its own names only."""
    created = create()

    with pytest.raises(ssl.SSLCertVerificationError):
        verify(created, created.authority, "elsewhere.local", tmp_path)


@each_kind
def test_the_certificate_of_another_authority_is_rejected(create: Create, tmp_path: Path) -> None:
    """Two authorities have the same name, but not the same key."""
    with pytest.raises(ssl.SSLCertVerificationError):
        verify(create(), create().authority, NAMES[0], tmp_path)


@pytest.mark.parametrize("service", ["poller", "carbon_sink"])
def test_poller_and_sink_do_not_load_certificates(service: str) -> None:
    """Their memory is the smaller for it."""
    program = (
        f"import pkgutil, sys, services.{service} as package\n"
        "for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'): __import__(module.name)\n"
        "print('shared.certificates' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "False"
