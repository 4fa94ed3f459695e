"""The live page: a real server, real HTTP, a real browser."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import select
import socket
import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import PATIENCE, call, finish, see, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from teachcam.collect.camera import Frame
from teachcam.collect.dataset import list_samples
from teachcam.collect.synthetic import render
from teachcam.errors import UserError
from teachcam.live.feedback import CorrectionWriter
from teachcam.live.prediction import Prediction
from teachcam.live.sinks.base import FrameResult
from teachcam.live.web import broadcast
from teachcam.live.web import connection as connection_module
from teachcam.live.web.auth import parse_address
from teachcam.live.web.server import Web

LABELS = ["none", "<b>bold</b>"]
IMAGE = render("palm", 3, 1, 320, 240)[0]


def result(number: int = 0, labels=LABELS, image: np.ndarray = IMAGE) -> FrameResult:
    probabilities = {label: 0.75 if index == 0 else 0.25 / (len(labels) - 1) for index, label in enumerate(labels)}
    prediction = Prediction(labels[0], 0.75, probabilities)
    frame = Frame(image, number, number / 30, time.monotonic())
    classifier = SimpleNamespace(provider="cpu", contract=SimpleNamespace(labels=tuple(labels)))
    return FrameResult(frame, prediction, prediction, 0.002, 0.004, 30.0, classifier)


class Page:
    """A page that is being served, and an HTTP client for it."""

    def __init__(self, tmp_path, address="127.0.0.1"):
        self._open = []
        self.camera = SimpleNamespace(reconnecting=False, dropped=0)
        self.web = Web(address, 0, LABELS, self.camera, CorrectionWriter(tmp_path / "data"))
        self.port = int(self.web.url.split("/")[2].rpartition(":")[2])
        self.token = self.web.url.partition("token=")[2]

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, dict(headers))
        reply = connection.getresponse()
        endless = reply.headers.get_content_type() in ("text/event-stream", "multipart/x-mixed-replace")
        self._open += [reply, connection]
        body = b"" if endless else reply.read()
        return SimpleNamespace(status=reply.status, headers=reply.headers, body=body, stream=reply)

    def close(self):
        for connection in self._open:
            connection.close()
        self.web.close()

    def connect(self, headers=None):
        """Open the connection of a page."""
        headers = dict(headers or {})
        host = headers.pop("Host", f"127.0.0.1:{self.port}")
        client = connect(
            f"ws://{host}/live", additional_headers=headers, compression=None, max_size=None, close_timeout=0.5,
            sock=socket.create_connection(("127.0.0.1", self.port)),
        )  # fmt: skip
        self._open.append(client)
        return client

    def correct(self, label, **headers):
        body = json.dumps({"label": label})
        return self.ask("POST", "/labels", body, {"Content-Type": "application/json", **headers})


@pytest.fixture
def served(tmp_path):
    page = Page(tmp_path)
    yield page
    page.close()


@pytest.fixture
def guarded(tmp_path):
    page = Page(tmp_path, "0.0.0.0")
    yield page
    page.close()


def events(reply, count):
    """Read `count` events."""
    found = []
    while len(found) < count:
        line = reply.stream.readline()
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found


def test_the_page_consists_of_its_own_files_and_allows_no_other_script(served):
    reply = served.ask("GET", "/")
    assert reply.status == 200
    assert b"<title>teachcam" in reply.body
    files = re.findall(rb'(?:src|href)="(page/[^"]+)"', reply.body)
    assert files
    for body in (reply.body, *(served.ask("GET", f"/{file.decode()}").body for file in files)):
        assert b"://" not in body
    assert not re.search(rb"<style|<script[^>]*>[^<]| style=| on[a-z]+=", reply.body)  # the policy would stop them
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]


def test_a_page_gets_images_and_predictions_over_one_connection(served):
    served.web(result(7))
    with served.connect() as live:
        state = next(json.loads(text) for text in live if isinstance(text, str))
        assert (state["frame"], state["label"], state["labels"]) == (7, "none", LABELS)
        jpeg = next(content for content in live if isinstance(content, bytes))
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(picture.astype(int) - IMAGE).mean() < 10
        served.web(result(8))
        assert any(json.loads(text)["frame"] == 8 for text in live if isinstance(text, str))
        assert served.correct("none").status == 200


def test_a_connection_that_says_too_much_is_closed_and_one_that_reads_nothing_delays_nobody(served):
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # as large as a JPEG can be
    served.web(result(image=image))
    with served.connect() as loud, served.connect(), served.connect() as reader:
        loud.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            for _ in loud:
                pass
        for number in range(1, 20):
            served.web(result(number, image=image))
            assert any(json.loads(text)["frame"] == number for text in reader if isinstance(text, str))
        served.web.close()  # although one connection reads nothing
        wait_until(lambda: not served.web._thread.is_alive())


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_another_site_can_not_look_through_the_camera(served, headers):
    served.web(result())
    with pytest.raises(InvalidStatus, match="403"):
        served.connect(headers)


def test_without_the_token_there_is_no_live_image(guarded):
    guarded.web(result())
    with pytest.raises(InvalidStatus, match="403"):
        guarded.connect()
    with guarded.connect({"Authorization": f"token {guarded.token}"}) as live:
        assert json.loads(live.recv())["label"] == "none"


def test_the_stream_consists_of_whole_images(served):
    served.web(result())
    reply = served.ask("GET", "/stream")
    assert reply.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    for number in range(3):
        while not reply.stream.readline().startswith(b"Content-Length: "):
            pass
        reply.stream.readline()
        start = reply.stream.read(2)
        assert start == b"\xff\xd8"
        content = start
        while not content.endswith(b"\xff\xd9"):
            content += reply.stream.read(1)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(picture.astype(int) - IMAGE).mean() < 10
        served.web(result(number + 1))


def test_events_contain_the_prediction_the_cameras_state_and_a_newer_models_labels(served, monkeypatch):
    monkeypatch.setattr(broadcast, "HEARTBEAT", PATIENCE)  # else an event without news may come between
    reply = served.ask("GET", "/events")
    (empty,) = events(reply, 1)
    assert "label" not in empty
    assert empty["labels"] == LABELS
    wait_until(lambda: served.web._broadcast._turns)
    served.web(result(7))
    (first,) = events(reply, 1)
    assert (first["frame"], first["label"], first["confidence"], first["provider"]) == (7, "none", 0.75, "cpu")
    assert first["probabilities"] == {"none": 0.75, "<b>bold</b>": 0.25}
    served.camera.reconnecting = True
    wait_until(lambda: served.web._broadcast._turns)
    served.web(result(8, ["x", "y", "z"]))
    second = events(reply, 1)[0]
    assert (second["labels"], second["camera"]) == (["x", "y", "z"], "lost")


def test_a_correction_saves_the_image_that_is_shown(served, tmp_path):
    assert served.correct("none").status == 409  # the camera has given no image yet
    served.web(result())
    for count in (1, 2):
        reply = served.correct("none")
        assert (reply.status, json.loads(reply.body)) == (200, {"label": "none", "count": count})
    items = list_samples(tmp_path / "data")
    assert [item.label for item in items] == ["none", "none"]
    assert len({item.session for item in items}) == 1
    assert json.loads(served.correct("<b>bold</b>").body)["error"].startswith("label '<b>bold</b>' can't name a folder")


@pytest.mark.parametrize("label", ["other", "../../etc", "none/../x", "", None, ["none"], {"a": 1}, 5, "none\x00"])
def test_only_labels_of_the_model_are_accepted(served, tmp_path, label):
    served.web(result())
    assert served.correct(label).status == 400
    assert not (tmp_path / "data").exists()


def test_bad_requests_get_the_right_status(served):
    served.web(result())
    json_type = {"Content-Type": "application/json"}
    assert served.ask("POST", "/labels", b"{" * 100_000, json_type).status == 413
    assert served.ask("POST", "/labels", b"[" * 4000, json_type).status == 400
    assert served.ask("POST", "/labels", b"[]", json_type).status == 400
    assert served.ask("POST", "/labels", b'{"label": "none"}').status == 415
    assert served.ask("GET", "/labels").status == 405
    assert served.ask("POST", "/").status == 405
    assert served.ask("HEAD", "/").status == 200
    for path in ("/stream", "/events"):
        assert served.ask("HEAD", path).status == 405  # else it would run without an end
    for path in ("/../../etc/passwd", "/live/web.py", "/page.html", "/%2e%2e/x", "//", "/stream/"):
        assert served.ask("GET", path).status == 404


def test_a_loopback_page_refuses_other_host_names_and_other_origins(served):
    served.web(result())
    for path in ("/", "/stream", "/events"):
        assert served.ask("GET", path, headers={"Host": "evil.example"}).status == 403
    assert served.correct("none", Host="evil.example:80").status == 403
    assert served.correct("none", Origin="http://evil.example").status == 403
    assert served.correct("none", Origin="null").status == 403
    assert served.correct("none", Origin=f"http://127.0.0.1:{served.port}").status == 200
    assert served.ask("GET", "/", headers={"Host": f"localhost:{served.port}"}).status == 200


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/stream", "/events", "/labels", "/nothing"])
def test_every_path_is_refused_without_the_token(guarded, path):
    guarded.web(result())
    method = "POST" if path == "/labels" else "GET"
    good = guarded.token
    wrong = [
        {}, {"Authorization": "token wrong"}, {"Authorization": f"token {good}x"}, {"Authorization": "token "},
        {"Cookie": f"teachcam-{guarded.port}=wrong"}, {"Cookie": f"teachcam-1={good}"}, {"Authorization": good},
    ]  # fmt: skip
    for headers in wrong:
        assert guarded.ask(method, path, headers=headers).status == 403
    for query in ("?token=", "?token=wrong", "?token=%C3%BC", f"?TOKEN={good}"):
        assert guarded.ask(method, path + query).status == 403
    assert guarded.ask(method, path, headers={"Authorization": f"token {good}"}).status != 403


def test_the_token_moves_from_the_address_into_a_cookie(guarded):
    reply = guarded.ask("GET", f"/?token={guarded.token}")
    assert (reply.status, reply.headers["Location"]) == (303, "./")
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert guarded.ask("GET", "/", headers={"Cookie": cookie.partition(";")[0]}).status == 200
    assert len(guarded.token) >= 32


def test_many_clients_take_turns_and_the_servers_threads_have_low_priority(served, monkeypatch):
    monkeypatch.setattr(broadcast, "HEARTBEAT", PATIENCE)
    waiting, turns, at_once = [], served.web._broadcast._turns, broadcast.CLIENTS_PER_UPDATE
    for number in range(1, 1 + 2 * at_once):
        waiting.append(served.ask("GET", "/events"))
        events(waiting[-1], 1)  # the state as it is
        wait_until(lambda number=number: len(turns) == number)
    for number, own in enumerate((waiting[:at_once], waiting[at_once:])):
        served.web(result(number))
        assert [event["frame"] for reply in own for event in events(reply, 1)] == [number] * at_once
        wait_until(lambda: len(turns) == len(waiting))
    if sys.platform == "linux":
        for thread in (served.web._thread, served.web._broadcast._thread):
            own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == max(own, broadcast.NICE)


@pytest.mark.parametrize("thread", ["encoder", "server"])
def test_a_thread_of_the_page_that_dies_is_an_error(served, monkeypatch, thread):
    assert served.web(result(0))
    if thread == "encoder":
        monkeypatch.setattr(broadcast, "_encode", lambda image: 1 / 0)
        served.ask("GET", "/stream")
    else:
        served.web._server.should_exit = True

    def dies():
        with contextlib.suppress(UserError):
            served.web(result(1))
            return False
        return True

    wait_until(dies)
    with pytest.raises(UserError, match=r"the page at http://.* has ended: (ZeroDivision|Runtime)Error"):
        served.web(result(2))


@pytest.mark.parametrize(("seconds", "closed"), [(PATIENCE, 10), (0.2, 30)])
def test_connections_that_are_too_many_or_without_a_request_are_closed(served, monkeypatch, seconds, closed):
    monkeypatch.setattr(connection_module, "REQUEST_TIMEOUT", seconds)
    monkeypatch.setattr(connection_module, "MAX_CONNECTIONS", 20)
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
    wait_until(lambda: len(select.select(silent, [], [], 0)[0]) == closed)
    if closed == len(silent):
        assert served.ask("GET", "/").status == 200
    for connection in silent:
        connection.close()


@pytest.mark.slow
def test_clients_that_never_read_delay_nobody(served):
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # as large as a JPEG can be
    stuck = []
    for _ in range(10):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", served.port))
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stuck.append(client)
    reply = served.ask("GET", "/events")
    events(reply, 1)

    def are_stuck() -> bool:
        connections = list(served.web._server.server_state.connections)
        return sum(one.transport.get_write_buffer_size() > 0 for one in connections) == len(stuck)

    for number in range(1000):
        finish(served.web, result(number, image=image))
        while events(reply, 1)[0].get("frame") != number:
            pass
        if number >= 60 and are_stuck():
            break
    assert are_stuck()
    finish(served.web.close)
    wait_until(lambda: not served.web._thread.is_alive())
    for client in stuck:
        client.close()


def test_closing_frees_the_port_and_a_port_in_use_is_an_error(served):
    with pytest.raises(UserError, match=f"can't serve on 127.0.0.1 port {served.port}: Address already in use"):
        Web("127.0.0.1", served.port, LABELS, served.camera)
    served.web.close()
    Web("127.0.0.1", served.port, LABELS, served.camera).close()


def test_addresses_of_http():
    assert parse_address("8080") == ("127.0.0.1", 8080)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:8080") == ("::1", 8080)
    for text in ("x", "70000", "http://a:80", "1.2.3.4", ":80", "a/b:80", "-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_address(text)
    with pytest.raises(UserError, match="no such address"):
        Web("no.such.host.invalid", 0, LABELS, SimpleNamespace(reconnecting=False, dropped=0))


def test_as_a_command(trained, tmp_path):
    arguments = ["--model", trained / "model.onnx", "--camera", "synthetic", "--headless", "--max-frames", "5"]
    answered = call("live/run.py", *arguments, "--http", "0", cwd=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert "the page: http://127.0.0.1:" in answered.stderr
    assert call("live/run.py", *arguments, "--http", "x", cwd=tmp_path).returncode == 2


@pytest.mark.browser
def test_in_a_browser(chromium, guarded, tmp_path):
    """The image, the bars, corrections by click and key, HTML in a label, a lost camera, a server that ends."""
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Security" in message.text else None)
    labels = ["palm", "<b>bold</b>"]
    guarded.web(result(1, labels))
    page.goto(f"http://127.0.0.1:{guarded.port}/?token={guarded.token}")
    assert "token" not in page.url
    see(page, "#label", "palm")
    wait_until(lambda: page.evaluate("document.getElementById('picture').width") == 320)
    assert page.locator(".bar").all_inner_texts()[1].startswith("<b>bold</b>")
    assert page.locator("b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="palm").click()
    see(page, "#done", "saved as palm (1 so far)")
    page.keyboard.press("1")
    see(page, "#done", "saved as palm (2 so far)")
    page.keyboard.press("2")
    see(page, "#toast.bad", "label '<b>bold</b>' can't name a folder")
    assert len(list_samples(tmp_path / "data")) == 2
    guarded.camera.reconnecting = True
    see(page, "#state", "camera lost")
    guarded.camera.reconnecting = False
    guarded.web(result(2, ["x", "y", "z"]))
    wait_until(lambda: page.locator(".bar").count() == 3)
    guarded.web.close()
    see(page, "#state", "no connection")
    assert not faults
    page.close()


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_reconnects_when_its_server_restarts(chromium, served):
    page = chromium.new_page()
    served.web(result(1))
    page.goto(served.web.url)
    see(page, "#state", "live")
    served.web.close()
    see(page, "#state", "no connection")
    again = Web("127.0.0.1", served.port, LABELS, served.camera)
    again(result(2))
    see(page, "#state", "live")
    wait_until(lambda: page.evaluate("document.getElementById('picture').width") == 320)
    again.close()
    page.close()
