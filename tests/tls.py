"""Certificates for servers of any name, and for a client."""

import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Return what a server with a certificate for these names takes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def write_client(
    authority: trustme.CA, directory: Path, *, password: bytes = b""
) -> tuple[str, str]:
    """Write a client's certificate and its key; return the paths of both files."""
    issued = authority.issue_cert("shop@example.com")
    certificate = _written(issued.cert_chain_pems[0], directory / "client.pem")
    pem = issued.private_key_pem
    if password:
        key = load_pem_private_key(pem.bytes(), None)
        protection = BestAvailableEncryption(password)
        pem = trustme.Blob(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    return certificate, _written(pem, directory / "client.key")


def _written(blob: trustme.Blob, path: Path) -> str:
    blob.write_to_path(path)
    return str(path)
