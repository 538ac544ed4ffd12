"""A proxy that ends TLS, writes down what goes through in the clear, and goes on over TLS to the real port.

Only who holds the key of the coordinator's own CA can do this: the test does.
"""

import contextlib
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shared import identity


class Wiretap:
    """Listens on loopback until it is closed.

    Attributes:
        port: where.
        up: what came from those who connected, a piece a connection.
        down: what they were answered.
    """

    def __init__(self, *, coordinator: Path, port: int, folder: Path) -> None:
        key = identity.read_private(coordinator / "keys" / "ca.key")
        authority = identity.Certificate(x509.load_pem_x509_certificate((coordinator / "ca.pem").read_bytes()), key)
        ours = identity.new_server_certificate(authority, "localhost")
        file = folder / "wiretap.pem"
        file.write_bytes(ours.key.private_bytes(serialization.Encoding.PEM, *_PLAIN) + ours.certificate_pem)
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._serving.load_cert_chain(file)
        self._asking = ssl.create_default_context(cafile=str(coordinator / "ca.pem"))
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.up: list[bytearray] = []
        self.down: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near = self._serving.wrap_socket(connection, server_side=True)
            far = self._asking.wrap_socket(
                socket.create_connection(("127.0.0.1", self._target)), server_hostname="localhost"
            )
            up, down = bytearray(), bytearray()
            self.up.append(up)
            self.down.append(down)
            threading.Thread(target=_pass_on, args=(far, near, down), daemon=True).start()
            _pass_on(near, far, up)


_PLAIN = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _pass_on(source: ssl.SSLSocket, target: ssl.SSLSocket, record: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError):
        while piece := source.recv(65536):
            record += piece
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
