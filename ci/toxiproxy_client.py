"""Uses every part of Toxiproxy's API through its Python client, and sees the effect of each toxic on real traffic.

Usage: toxiproxy_client.py SECKILL

Nothing here asserts an upper bound on time that a busy machine could break.
"""

import contextlib
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time

import requests
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.server import Toxiproxy

PATIENCE = 20
# Longer than anybody waits.
FOREVER = 3_600_000


class Upstream(socketserver.BaseRequestHandler):
    """Echoes what comes; closes when it is told to, and bears to be reset."""

    def handle(self):
        with contextlib.suppress(ConnectionError):
            while (data := self.request.recv(65536)) not in (b"", b"close"):
                self.request.sendall(data)


def address(listen):
    host, port = listen.rsplit(":", 1)
    return host, int(port)


def dial(proxy):
    return socket.create_connection(address(proxy.listen), timeout=PATIENCE)


def echo(connection, data):
    """Sends and receives as much; how long that took."""
    begun = time.monotonic()
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        part = connection.recv(65536)
        if not part:
            break
        got += part
    assert got == data, f"{len(got)} of {len(data)} bytes came back"
    return time.monotonic() - begun


def is_refused(proxy):
    try:
        dial(proxy).close()
    except ConnectionRefusedError:
        return True
    return False


@contextlib.contextmanager
def toxic(proxy, kind, attributes, **more):
    """A toxic while in the context, as the server tells it."""
    proxy.add_toxic(type=kind, attributes=attributes, **more)
    name = more.get("name", f"{kind}_{more.get('stream', 'downstream')}")
    told = proxy.get_toxic(name)
    assert told.type == kind and told.stream == more.get("stream", "downstream"), vars(told)
    assert all(told.attributes[key] == value for key, value in attributes.items()), told.attributes
    try:
        yield name
    finally:
        proxy.destroy_toxic(name)
    assert proxy.get_toxic(name) is None


def refused_with(error, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except error:
        return
    raise AssertionError(f"{call} was not refused with {error.__name__}")


def proxies(server, upstream):
    assert server.running() and b"2." in server.version()
    proxy = server.create(upstream=upstream, name="echo")
    assert proxy.enabled and proxy.upstream == upstream and not proxy.listen.endswith(":0"), vars(proxy)
    with dial(proxy) as connection:
        echo(connection, b"hello")
    refused_with(ProxyExists, server.create, upstream=upstream, name="echo")
    refused_with(ProxyExists, APIConsumer.post, "/proxies", json={"name": "echo", "upstream": upstream})
    refused_with(NotFound, APIConsumer.get, "/proxies/nobody")
    refused_with(NotFound, APIConsumer.delete, "/proxies/echo/toxics/nothing")
    refused_with(InvalidToxic, proxy.add_toxic, type="poison")
    refused_with(InvalidToxic, APIConsumer.post, "/proxies", json={"name": "nowhere"})
    outside = APIConsumer.post("/proxies", json={"name": "outside", "upstream": "192.0.2.1:80"})
    assert outside.status_code == 403 and outside.json()["status"] == 403, outside.text
    return proxy


def delays(proxy):
    with dial(proxy) as connection:
        for stream in ("downstream", "upstream"):
            with toxic(proxy, "latency", {"latency": 100, "jitter": 10}, stream=stream):
                assert echo(connection, b"slow") >= 0.09
        with toxic(proxy, "latency", {"latency": FOREVER}, name="changing") as name:
            refused_with(ProxyExists, proxy.add_toxic, type="latency", name="changing")
            where = f"http://{APIConsumer.host}:{APIConsumer.port}/proxies/{proxy.name}/toxics/{name}"
            changed = requests.patch(where, json={"attributes": {"latency": 50}}).json()
            assert changed["attributes"] == {"latency": 50, "jitter": 0} and changed["toxicity"] == 1, changed
            assert echo(connection, b"changed") >= 0.05
        with toxic(proxy, "latency", {"latency": FOREVER}, toxicity=0.0):
            echo(connection, b"spared")
        assert min(echo(connection, b"fast again") for _ in range(50)) < 0.05
        with toxic(proxy, "bandwidth", {"rate": 100}):
            assert echo(connection, b"b" * 40_000) >= 0.3


def pieces(proxy):
    with dial(proxy) as connection, toxic(proxy, "slicer", {"average_size": 8, "size_variation": 2, "delay": 10_000}):
        begun = time.monotonic()
        connection.sendall(b"s" * 64)
        first = connection.recv(64)
        assert 1 <= len(first) <= 10, len(first)
        left = 64 - len(first)
        while left:
            left -= len(connection.recv(64))
        # At least seven pieces, with six pauses between them.
        assert time.monotonic() - begun >= 0.06


def ends(proxy):
    with toxic(proxy, "slow_close", {"delay": 200}), dial(proxy) as connection:
        echo(connection, b"not slow")
        begun = time.monotonic()
        connection.sendall(b"close")
        assert connection.recv(1) == b"" and time.monotonic() - begun >= 0.2
    with dial(proxy) as connection, toxic(proxy, "timeout", {"timeout": 200}):
        begun = time.monotonic()
        connection.sendall(b"lost")
        assert connection.recv(4) == b"" and time.monotonic() - begun >= 0.15
    with dial(proxy) as connection, toxic(proxy, "limit_data", {"bytes": 10}):
        connection.sendall(b"0123456789 and more")
        got = b""
        while part := connection.recv(64):
            got += part
        assert got == b"0123456789", got
    for timeout in (0, 100):
        with dial(proxy) as connection:
            echo(connection, b"first")
            with toxic(proxy, "reset_peer", {"timeout": timeout}):
                refused_with(ConnectionResetError, connection.recv, 1)


def down(proxy):
    before = proxy.listen
    with toxic(proxy, "latency", {"latency": 100}):
        with proxy.down():
            assert is_refused(proxy)
            assert not server_view(proxy)["enabled"]
        assert server_view(proxy)["listen"] == before
        with dial(proxy) as connection:
            assert echo(connection, b"still slow") >= 0.1


def server_view(proxy):
    return APIConsumer.get(f"/proxies/{proxy.name}").json()


def many(server, proxy, upstream):
    wanted = [{"name": name, "listen": "127.0.0.1:0", "upstream": upstream} for name in ("one", "two")]
    answer = APIConsumer.post("/populate", json=wanted)
    assert answer.status_code == 201 and [p["name"] for p in answer.json()["proxies"]] == ["one", "two"], answer.text
    assert [p.name for p in server.populate([{**wanted[0], "name": "three"}])] == ["three"]
    assert sorted(server.proxies()) == ["echo", "one", "three", "two"]
    for one in server.proxies().values():
        with dial(one) as connection:
            echo(connection, b"each of them")
    assert b'toxiproxy_proxy_received_bytes_total{direction="upstream",proxy="one"' in APIConsumer.get("/metrics").content
    proxy.add_toxic(type="latency", attributes={"latency": FOREVER})
    server.get_proxy("one").disable()
    server.reset()
    assert all(p.enabled and not p.toxics() for p in server.proxies().values())
    for one in server.proxies().values():
        with dial(one) as connection:
            echo(connection, b"reset")
    server.destroy_all()
    assert server.proxies() == {} and is_refused(proxy)


def main():
    upstream = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    told = f"127.0.0.1:{upstream.server_address[1]}"
    process = subprocess.Popen([sys.argv[1], "proxy", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        host, port = address(process.stdout.readline().split()[-1])
        server = Toxiproxy()
        server.update_api_consumer(host, port)
        proxy = proxies(server, told)
        for part in (delays, pieces, ends, down):
            part(proxy)
            print(f"toxiproxy-python: {part.__name__}: ok")
        many(server, proxy, told)
        print("toxiproxy-python: populate, reset, destroy: ok")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE)
    assert code == 0, f"seckill proxy ended with {code}"


if __name__ == "__main__":
    main()
