"""Run in namespaces of its own: a proxy here, and over there a hostile name server and web server.

    here 10.77.0.1 (the node, private)  <-- veth -->  there 10.77.0.2 and, public, 93.184.216.34

The name server there says, for a name, what the name itself asks for: ``a-93-184-216-34.evil.test``; for
``rebind-N.evil.test`` the public address first, and 10.77.0.1 ever after.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from perak.agent.network.proxy import NetworkProxy, Traffic
from perak.agent.network.rules import Rules

HERE, THERE, PUBLIC = "10.77.0.1", "10.77.0.2", "93.184.216.34"
PORT = 8080


class Web(http.server.BaseHTTPRequestHandler):
    where = ""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://{self.path[4:]}:{PORT}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = f"served by {self.where}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve_web(address: str, where: str) -> None:
    handler = type("Web", (Web,), {"where": where})
    found = http.server.ThreadingHTTPServer((address, PORT), handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()


def serve_names() -> None:
    asked: dict[str, int] = {}
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind((THERE, 53))
    while True:
        query, client = door.recvfrom(512)
        name, kind, end = question(query)
        address = answer(name, asked) if kind == 1 else None
        head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if address else 0, 0, 0)
        body = query[12:end]
        if address:
            body += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
        door.sendto(head + body, client)


def question(query: bytes) -> tuple[str, int, int]:
    labels, at = [], 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels).lower(), struct.unpack(">H", query[at + 1 : at + 3])[0], at + 5


def answer(name: str, asked: dict[str, int]) -> str:
    first = name.split(".")[0]
    if first.startswith("rebind"):
        asked[name] = asked.get(name, 0) + 1
        return PUBLIC if asked[name] == 1 else HERE
    return ".".join(first.split("-")[1:])


class Notes:
    def __init__(self) -> None:
        self.traffic = Traffic()

    def rules(self, run: str) -> Rules:
        return Rules.of((f"*.evil.test:{PORT}", f"{PUBLIC}:{PORT}", f"{HERE}:{PORT}"))

    def read(self, run: str) -> Traffic:
        return self.traffic

    def write(self, run: str, traffic: Traffic) -> None:
        self.traffic = traffic


def ip(*words: str) -> None:
    subprocess.run(["/usr/sbin/ip", *words], check=True)


def there() -> None:
    """The far end, in a network namespace that its parent has connected by now."""
    sys.stdin.readline()
    ip("addr", "add", f"{THERE}/24", "dev", "there")
    ip("addr", "add", f"{PUBLIC}/32", "dev", "there")
    ip("link", "set", "there", "up")
    serve_web(PUBLIC, "the public server")
    serve_web(THERE, "the private server there")
    threading.Thread(target=serve_names, daemon=True).start()
    time.sleep(0.2)  # the interface needs a moment
    print("ready", flush=True)
    sys.stdin.readline()


def ask(port: int, host: str, path: str = "/") -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"GET http://{host}:{PORT}{path} HTTP/1.1\r\n\r\n".encode())
        reply = b""
        while data := client.recv(65536):
            reply += data
    head, _, body = reply.decode().partition("\r\n\r\n")
    location = [line for line in head.splitlines() if line.startswith("Location")]
    return " ".join([head.split(" ")[1], *location, body.strip()])


def here() -> dict[str, Any]:
    far = subprocess.Popen(
        ["/usr/bin/unshare", "-n", sys.executable, __file__, "there"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert far.stdin is not None
    assert far.stdout is not None
    while os.readlink(f"/proc/{far.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    ip("link", "add", "here", "type", "veth", "peer", "name", "there")
    ip("link", "set", "there", "netns", str(far.pid))
    ip("addr", "add", f"{HERE}/24", "dev", "here")
    ip("link", "set", "lo", "up")
    ip("link", "set", "here", "up")
    ip("route", "add", "default", "via", THERE)
    far.stdin.write("go\n")
    far.stdin.flush()
    assert far.stdout.readline() == "ready\n"
    with tempfile.TemporaryDirectory() as folder:
        resolv = Path(folder, "resolv.conf")
        resolv.write_text(f"nameserver {THERE}\noptions timeout:2 attempts:1\n")
        subprocess.run(["/usr/bin/mount", "--bind", str(resolv), "/etc/resolv.conf"], check=True)
        serve_web(HERE, "the node itself")
        proxy = NetworkProxy(notes := Notes())
        listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        port = listener.getsockname()[1]
        proxy.open("run-1@local", listener)
        dashed = PUBLIC.replace(".", "-")
        said = {
            "public": ask(port, f"a-{dashed}.evil.test"),
            "private": ask(port, "a-10-77-0-2.evil.test"),
            "own": ask(port, "a-10-77-0-1.evil.test"),
            "loopback": ask(port, "a-127-0-0-1.evil.test"),
            "metadata": ask(port, "a-169-254-169-254.evil.test"),
            "rebind_first": ask(port, "rebind-1.evil.test"),
            "rebind_then": ask(port, "rebind-1.evil.test"),
            "redirect": ask(port, f"a-{dashed}.evil.test", f"/to/{HERE}"),
            "redirected": ask(port, HERE),
            "unknown": ask(port, "nobody.test"),
        }
        proxy.stop()
        subprocess.run(["/usr/bin/umount", "/etc/resolv.conf"], check=True)
    far.stdin.write("end\n")
    far.stdin.close()
    far.wait(10)
    return {"said": said, "refused": notes.traffic.refused}


if __name__ == "__main__":
    if sys.argv[1:] == ["there"]:
        there()
    else:
        print(json.dumps(here()))
