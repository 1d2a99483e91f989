"""Runs inside the installation's sandbox, with the node's Python and nothing but its standard library.

The sandbox has a network of its own with nothing in it. This listens on its loopback, carries each connection
to the proxy's Unix socket, and runs the given commands with that as their HTTP proxy. Without a socket it
only runs them.

python3 -c <this text> SOCKET|"" '[["uv", "venv", ...], ["uv", "pip", ...]]'
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

CHUNK_BYTES = 256 * 1024
# Runs that are paid for come first on the node's cores.
NICENESS = 5


def main(socket_path: str, commands: str) -> int:
    """Run the commands one after another until one fails; its exit status is ours."""
    os.nice(NICENESS)
    env = dict(os.environ)
    if socket_path:
        server = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=_accept, args=(server, socket_path), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        env.update(
            dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), url)
        )
    for command in json.loads(commands):
        status = subprocess.run(command, env=env, check=False).returncode
        if status:
            return status if status > 0 else 128 - status
    return 0


def _accept(server: socket.socket, socket_path: str) -> None:
    while True:
        inner, _ = server.accept()
        outer = socket.socket(socket.AF_UNIX)
        try:
            outer.connect(socket_path)
        except OSError:
            inner.close()
            outer.close()
            continue
        for source, sink in ((inner, outer), (outer, inner)):
            threading.Thread(target=_relay, args=(source, sink), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
    # Either end closing ends both directions; the pair's other thread then leaves too.
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
