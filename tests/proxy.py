"""TCP proxies that act as networks do which lose a path: connections fall silent, or are reset."""

import contextlib
import socket
import struct
import threading
from enum import Enum
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


class Cut(Enum):
    """What a path does to a host that is cut off."""

    SILENT = "packets are dropped"
    RESET = "connections are reset"


class CuttableProxy:
    """A path to a port of 127.0.0.1 that can be cut, and mended.

    While it drops packets, connections stay and new ones seem to be made. What was sent meanwhile arrives
    once it is mended, if nobody hung up: TCP sends it again.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._passable = threading.Event()
        self._passable.set()
        self._resets = False
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut(Cut.RESET)

    def cut(self, how: Cut) -> None:
        """Let nothing more pass."""
        self._resets = how is Cut.RESET
        if not self._resets:
            self._passable.clear()
            return
        for one in list(self._open):
            _reset_at_close(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RD)  # wakes the thread that reads, and tells the other end nothing

    def mend(self) -> None:
        """Let everything pass again."""
        self._resets = False
        self._passable.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the end: the listener was closed
            while True:
                client, _ = self._listener.accept()
                if self._resets:
                    _reset_at_close(client)
                    client.close()
                else:
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._passable.wait()
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            both = {client, server}
            self._open |= both
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
            self._open -= both

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passable.wait()
                sink.sendall(data)
            if not self._resets:
                sink.shutdown(socket.SHUT_WR)


def _reset_at_close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
