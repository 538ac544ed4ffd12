"""A proxy as hospitals have one: it opens tunnels (CONNECT) and nothing else, and writes down what it was asked."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """Listens on loopback.

    Attributes:
        asked: the first line of each request.
        sent: how many bytes went through its tunnels.
        first: the first bytes that each side sent through a tunnel.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.first: list[bytes] = []
        self.sent = 0
        self.refuses = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, near: socket.socket) -> None:
        head = b""
        with contextlib.suppress(OSError), near:
            while b"\r\n\r\n" not in head and (more := near.recv(4096)):
                head += more
            line = head.split(b"\r\n")[0].decode()
            self.asked.append(line)
            if self.refuses or not line.startswith("CONNECT "):
                near.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            host, _, port = line.split()[1].rpartition(":")
            with socket.create_connection((host, int(port))) as far:
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
                back.start()
                self._carry(near, far)
                back.join()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        began = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not began:
                    self.first.append(data[:3])
                    began = True
                self.sent += len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxying() -> Iterator[Proxy]:
    proxy = Proxy()
    try:
        yield proxy
    finally:
        proxy.close()
