"""A TCP proxy whose connections can fall silent without breaking: a network that loses a path."""

import contextlib
import socket
import threading
from typing import Self


class SilenceableProxy:
    """Forwards 127.0.0.1 to another port of it; `fall_silent` mutes all connections that are open then."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._muted: set[socket.socket] = set()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def fall_silent(self) -> int:
        """Forward nothing more on the connections that are open now; return how many there are."""
        self._muted |= self._open
        return len(self._open) // 2

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the end: the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._muted:
                    sink.sendall(data)
            if source not in self._muted:  # a muted end is not told of the other's
                sink.shutdown(socket.SHUT_RDWR)
