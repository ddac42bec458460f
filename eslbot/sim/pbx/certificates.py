"""A certificate authority that lives as long as one stand-in."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

import trustme


class LoopbackAuthority:
    """Makes certificates for loopback names; ``ca_file`` is what a client is configured with.

    The files are in a temporary directory until :meth:`close`.
    """

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._directory = tempfile.TemporaryDirectory(prefix="eslbot-ca-")
        self.ca_file = Path(self._directory.name) / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def server_context(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for ``names``, host names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A ticket comes behind the handshake. A Python client that writes in one thread while another reads
        # it lost the connection once in about 300 times: up to 3.12 SSL sockets have no lock of their own.
        context.num_tickets = 0
        self._authority.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts this authority only."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def close(self) -> None:
        """Remove the files."""
        self._directory.cleanup()
