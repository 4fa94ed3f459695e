"""Hostile clients of the page: they get an error or no reply, delay nothing, read no secret and use up nothing."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import string
import threading
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from conftest import PATIENCE, wait_until
from hypothesis import assume, example, given
from hypothesis import strategies as st

from teachcam.collect.camera import Camera
from teachcam.live.loop import loop
from teachcam.live.web import connection
from teachcam.teach.backbone import Backbone
from teachcam.teach.page import StudioPage
from teachcam.teach.session import Studio
from teachcam.teach.teacher import Teacher

SECRET = b"kr1ptonite"


class Served:
    """A studio and its page, with the live loop behind it."""

    def __init__(self, folder: Path):
        (folder / "secret.jpg").write_bytes(SECRET)
        self.data = folder / "data"
        self.camera = Camera("synthetic?seed=3&fps=5&size=160x120")
        self.teacher = Teacher(self.data, Backbone(folder / "backbone", "cpu"))
        self.studio = Studio(self.camera, self.data, self.teacher, folder / "runs")
        self.web = StudioPage("127.0.0.1", 0, self.camera, self.studio)
        self.port = int(self.web.url.split("/")[2].rpartition(":")[2])
        self._stop = threading.Event()
        arguments = {"watcher": self.studio, "stop": self._stop}
        self._loop = threading.Thread(target=loop, args=(self.camera, self.teacher.model, [self.web]), kwargs=arguments)
        self._loop.start()

    def raw(self, content: bytes, end: bool = True) -> bytes:
        """Send bytes, and return what comes back until the server closes.

        Args:
            content: To send.
            end: Close our side. The server then drops answers that it is still working on.
        """
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            try:
                client.sendall(content)
                if end:
                    client.shutdown(socket.SHUT_WR)
                while piece := client.recv(1 << 16):
                    answer += piece
                    if b"text/event-stream" in answer or b"multipart/x-mixed" in answer:
                        break
            except TimeoutError:
                raise
            except OSError:
                pass
        return answer

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def post(self, path: str, content: object) -> tuple[int, bytes]:
        return self.ask("POST", path, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def close(self) -> None:
        self._stop.set()
        self._loop.join()
        self.studio.close()
        self.teacher.close()
        self.camera.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    one = Served(tmp_path_factory.mktemp("served"))
    yield one
    one.close()


@pytest.fixture(autouse=True)
def no_traceback(served, caplog):
    """Nothing that a client sends is an error of the server, and the page goes on."""
    yield
    assert [record.message for record in caplog.get_records("call") if record.exc_info] == []
    assert served.ask("GET", "/")[0] == 200


REQUEST = (
    b"POST /studio/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 14\r\n\r\n{"label": "a"}'
)
pieces = st.sampled_from(
    [b"GET ", b"POST ", b"HEAD ", b"/", b"/events", b"/stream", b"/labels", b"/studio/add", b" HTTP/1.1", b" HTTP/1.0",
     b"\r\n", b"\r\n\r\n", b"Host: localhost", b"Host: evil", b"Content-Length: 5", b"Content-Length: -1",
     b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n", b"zz\r\n", b"0\r\n\r\n",
     b"Expect: 100-continue", b"Connection: upgrade", b"Upgrade: websocket", b"Content-Type: application/json",
     b"\0", b"\xff", b": ", b"{}", b"[" * 50]
)  # fmt: skip


@given(st.lists(pieces | st.binary(max_size=20), max_size=14).map(b"".join))
@example(b"POST /labels HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
@example(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nabcde\r\nzz\r\n")
@example(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
@example(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"garbage" * 20_000)
def test_any_bytes_get_an_answer_or_none(served, count, content):
    count("inputs")
    answer = served.raw(content)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in answer[:20]


@given(st.integers(0, len(REQUEST) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_request_is_no_error_of_the_server(served, count, place, change):
    count("faults")
    answer = served.raw(REQUEST[:place] + change + REQUEST[place + len(change) :])
    assert b" 500 " not in answer[:20]


@given(st.lists(pieces | st.binary(max_size=20), min_size=1, max_size=6).map(b"".join))
@example(b"zz\r\n")
def test_any_bytes_after_an_early_answer_are_no_error_of_the_server(served, count, content):
    count("inputs")
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(head)
        assert b" 404 " in client.recv(1 << 16)
        with contextlib.suppress(OSError):
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            client.recv(1 << 16)


UPGRADE = (
    b"GET /live?page=x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


@given(st.binary(max_size=60))
@example(b"\x81\xfe\xff\xff" + b"\0" * 4 + b"x" * 65535)  # a text of 64 KB, of which the server takes 4
@example(b"\x81\xff" + b"\xff" * 8)  # one of 2^64 bytes
@example(b"\x81\x01a")  # not masked
@example(b"\x89\x80" + b"\0" * 4)  # a ping
@example(b"\x82\x81" + b"\0" * 5)  # bytes, where the page sends nothing
def test_any_bytes_over_a_websocket_are_no_error_of_the_server(served, count, content):
    count("inputs")
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        client.sendall(UPGRADE)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        with contextlib.suppress(OSError):
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
    wait_until(lambda: served.studio.recording._connections["x"] == 0)


@given(st.integers(4, len(UPGRADE) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_upgrade_is_no_error_of_the_server(served, count, place, change):
    count("faults")
    answer = served.raw(UPGRADE[:place] + change + UPGRADE[place + len(change) :])
    assert b" 500 " not in answer[:20]


text = st.text(max_size=30) | st.sampled_from(
    ["", "a", "..", "../secret.jpg", "\0", "\ud800", "/etc/passwd", "x" * 300]
)
values = st.recursive(text | st.none() | st.integers() | st.floats() | st.booleans(), st.lists, max_leaves=4)
ACTIONS = [
    "record", "stop", "undo", "redo", "place", "add", "rename", "remove", "move", "restore", "order", "camera",
    "mirror", "export", "cancel_export", "stop_training",
]  # fmt: skip
names = st.sampled_from(
    ["label", "name", "names", "to", "before", "place", "page", "source", "on", "id", "target", "precision", "self"]
)


@given(st.sampled_from(ACTIONS), st.dictionaries(names, text | values, max_size=3) | values)
@example("move", {"label": "a", "names": ["\ud800"], "to": None})
@example("camera", {"source": "../secret.jpg"})
@example("move", {"label": "a", "names": ["../secret.jpg", "/etc/passwd", "\0", "x" * 300], "to": None})
@example("move", {"label": ["a"], "names": "abc", "to": None})
@example("restore", {"label": "..", "names": ["secret.jpg", "../secret.jpg", "\0", "x" * 300]})
@example("restore", {"label": "/etc", "names": ["passwd"]})
@example("order", {"label": "a", "before": "\ud800"})
@example("add", {"label": None})
@example("record", {"label": "\ud800"})
@example("rename", {"label": "a", "name": "sessions.jsonl"})
@example("export", {"target": "\ud800", "precision": "fp32"})
def test_any_arguments_of_an_action_are_taken_or_refused(served, count, action, arguments):
    count("inputs")
    status, body = served.post(f"/studio/{action}", arguments)
    assert status in (200, 400, 409, 413), body
    assert set(json.loads(body)) in ({"result"}, {"error"})
    outside = {path.name for path in served.data.parent.iterdir()}
    assert outside <= {"data", "secret.jpg", "backbone", "runs"}
    assert (served.data.parent / "secret.jpg").read_bytes() == SECRET


TRICKS = [
    "../../secret.jpg", "..%2f..%2fsecret.jpg", "%2e%2e/secret.jpg", "....//secret.jpg", "..\\..\\secret.jpg", "%00",
    "a/../../secret.jpg", "/etc/passwd", "//etc/passwd", "file:///etc/passwd", "a%00.jpg", "~root/.profile", "a;b",
    "C:\\windows", "%ff%fe", ".", "a?b",
]  # fmt: skip


@given(
    st.sampled_from(["image", "images", "rejected", "model", "kit.zip"]),
    st.sampled_from(TRICKS) | text.map(lambda value: quote(value, errors="replace")),
    st.sampled_from(TRICKS) | text.map(lambda value: quote(value, errors="replace")),
)
def test_no_path_leads_out_of_the_dataset(served, count, route, label, name):
    served.studio.labels.add("a") if "a" not in served.studio.labels.files else None
    query, tail = f"&name={name}", "&rejected=1&size=large"
    paths = [f"/studio/{route}?label={of}{query}{end}" for of in (label, "a") for end in ("", tail)]
    for path in (*paths, f"/page/{name}", f"/{name}"):
        count("inputs")
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = served.raw(request.encode("latin-1", "replace"), end=False)
        status = int(answer.split()[1])
        assert status in (200, 400, 403, 404, 405, 409)
        assert status != 200 or route in ("images", "rejected") or path.endswith("/") or name == ""
        assert SECRET not in answer
        assert b"root:" not in answer


HOSTS = [
    "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::1].evil.example",
    "localhost@evil.example", "localhost:80@evil.example", "0.0.0.0", "[::]", "2130706433", "127.1", "0x7f.1",
    "[::ffff:10.0.0.1]", "localhost.", "192.168.1.1", "127.0.0.1,evil.example", "127.0.0.1 evil.example",
    "localhost%00.evil",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_another_site_could_have_is_refused(served, count, host):
    """DNS rebinding: the browser asks this machine, and names another site's host."""
    for path in ("/", "/events", "/stream", "/metrics", "/studio/images?label=a", "/nothing"):
        count("inputs")
        answer = served.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), end=False)
        assert int(answer.split()[1]) in (400, 403)


@given(st.text(string.printable, max_size=20), st.sampled_from(["http://", "https://", "", "null", "file://"]))
def test_no_other_origin_changes_anything(served, count, name, scheme):
    origin = f"{scheme}{name}".strip()
    assume(origin.isprintable() and origin.isascii() and origin.partition("://")[2] != f"localhost:{served.port}")
    count("inputs")
    headers = {"Content-Type": "application/json", "Host": f"localhost:{served.port}", "Origin": origin}
    status, _ = served.ask("POST", "/studio/add", b'{"label": "from another origin"}', **headers)
    assert status == 403
    assert not (served.data / "from another origin").exists()


@pytest.mark.parametrize(
    "head", [b"X: " + b"x" * 300_000, b"\r\n".join(b"X%d: x" % number for number in range(50_000)), b"x" * 300_000]
)
def test_huge_headers_are_refused(served, count, head):
    count("faults")
    memory = psutil.Process().memory_info().rss
    answers = [served.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n") for _ in range(20)]
    assert all(not answer or answer.split()[1] in (b"400", b"431") for answer in answers)
    assert psutil.Process().memory_info().rss - memory < 50e6


UNFINISHED = {
    "a request": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "a body": b"POST /studio/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{",
    "chunks": b"POST /studio/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n",
    "a second request": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n",
    "a second request of a stranger": b"GET / HTTP/1.1\r\nHost: evil\r\n\r\nGET / HTTP/1.1\r\n",
}


def is_closed(client: socket.socket) -> bool:
    """Send one more byte. Return whether the server has closed the connection; then close this side, too."""
    try:
        client.send(b"x")
        while client.recv(1 << 16, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    client.close()
    return True


@pytest.mark.parametrize("what", UNFINISHED)
def test_what_is_never_finished_is_closed(served, count, monkeypatch, what):
    """Each connection takes one of a limited number. None may be kept by sending next to nothing, byte by byte."""
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.3)
    clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
    for client in clients:
        with contextlib.suppress(OSError):
            client.sendall(UNFINISHED[what])

    def all_are_closed() -> bool:
        count("faults")
        clients[:] = [client for client in clients if not is_closed(client)]
        return not clients

    wait_until(all_are_closed)


def count_threads() -> int:
    """Return the number of threads, without asyncio's pool, which grows to its limit in its own time."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def test_nothing_grows_with_the_requests(served, count, rounds):
    """Threads, files, memory and waiting clients are as before, whatever clients come, leave, and break off."""
    process, connections = psutil.Process(), served.web._server.server_state.connections

    def come_and_go(number: int) -> None:
        for _ in range(number):
            for path in (b"/", b"/events", b"/stream", b"/metrics", b"/nothing"):
                count("faults")
                with socket.create_connection(("127.0.0.1", served.port)) as client:
                    client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    client.recv(100)
                    if path == b"/stream":  # leave with a reset, in the middle of an image
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: not connections)

    come_and_go(rounds(20, 200))
    before = (count_threads(), process.num_fds())
    memory = [process.memory_info().rss]
    for _ in range(4):
        come_and_go(rounds(15, 750))
        memory.append(process.memory_info().rss)
    wait_until(lambda: not served.web._broadcast._num_watchers)
    assert count_threads() <= before[0] + 1
    assert process.num_fds() <= before[1] + 2
    grown = [later - earlier for earlier, later in itertools.pairwise(memory)]
    assert min(grown) < 1e6, grown  # a leak shows every time; what the teacher learns meanwhile only once
    assert len(served.web._broadcast._turns) == 0
