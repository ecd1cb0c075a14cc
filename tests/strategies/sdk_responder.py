"""A small server for tests of the transports alone: it answers what the test says, over real sockets.

What decides is tested against the real service, in ``tests/system``.
"""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, Any] | None
Answering = Callable[[str, Any, str], Answer]
"""From op, body and token to status and body; ``None`` breaks the connection."""


@contextmanager
def over_http(answering: Answering) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            told = answering(self.path.removeprefix("/access/v1/"), body, token)
            if told is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            data = told[1] if isinstance(told[1], bytes) else json.dumps(told[1]).encode()
            self.send_response(told[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass  # whoever asked has given up

    with Server(("127.0.0.1", 0), Handler) as server:
        yield from _served(server, f"http://127.0.0.1:{server.server_address[1]}")


@contextmanager
def over_unix(path: Path, answering: Answering) -> Iterator[str]:
    """The same over a Unix socket, in frames."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(4):
                asked = json.loads(self.rfile.read(int.from_bytes(head, "big")))
                told = answering(asked["op"], asked["body"], asked.get("token", ""))
                if told is None:
                    return
                data = json.dumps({"id": asked["id"], "status": told[0], "body": told[1]}).encode()
                self.wfile.write(len(data).to_bytes(4, "big") + data)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass

    with Server(str(path), Handler) as server:
        yield from _served(server, f"unix:{path}")


def _served(server: socketserver.BaseServer, address: str) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
