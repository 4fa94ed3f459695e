"""Cameras in the network, against real HTTP servers: streams, single pictures, passwords."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import socket
import socketserver
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import Clock, assert_one_line_error, call_here, wait_until

from teachcam.collect import network_camera
from teachcam.collect.camera import Camera, CameraError
from teachcam.collect.network_camera import MjpegCamera, SnapshotCamera, hide_secrets, open_network_camera
from teachcam.collect.network_failure import ask_rtsp, describe_error
from teachcam.images import encode_jpeg

LANDSCAPE, PORTRAIT = np.full((48, 64, 3), 50, np.uint8), np.full((64, 48, 3), 90, np.uint8)


def part(image: np.ndarray, boundary: str = "frame", length: bool = True) -> bytes:
    """Return an image as a part of a multipart stream."""
    jpeg = encode_jpeg(image)
    head = f"--{boundary}\r\nContent-Type: image/jpeg\r\n" + (f"Content-Length: {len(jpeg)}\r\n" if length else "")
    return head.encode() + b"\r\n" + jpeg + b"\r\n"


@pytest.fixture
def serve():
    """Return a function that starts a server; it sends `kind` and then `parts`, one every 20 ms, for ever."""
    servers = []

    def start(kind: str, parts: list[bytes], password: str = "", repeat: bool = True) -> ThreadingHTTPServer:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.paths.append(self.path)
                given = self.headers.get("Authorization", "")
                if password and given != "Basic " + base64.b64encode(password.encode()).decode():
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", kind)
                if not kind.startswith("multipart"):
                    self.send_header("Content-Length", str(len(parts[0])))
                self.end_headers()
                try:
                    while not server.closing.wait(0.02):
                        for content in parts:
                            self.wfile.write(content)
                            time.sleep(0.02)
                        if not repeat or not kind.startswith("multipart"):
                            return
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.closing, server.paths = True, threading.Event(), []
        server.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("boundary", "length"), [("frame", True), ("frame", False), ("--b", True), ('"a b"', False)])
def test_a_stream_gives_its_pictures_whatever_its_parts_look_like(serve, boundary, length):
    written = boundary.strip('"')
    parts = [part(LANDSCAPE, written, length), part(PORTRAIT, written, length)]
    server = serve(f"multipart/x-mixed-replace; boundary={boundary}", parts)
    source = open_network_camera(f"http://{server.address}/", None)
    assert isinstance(source, MjpegCamera)
    assert [source.read().shape for _ in range(4)] == [(48, 64, 3), (64, 48, 3)] * 2
    source.close()
    assert len(server.paths) == 1  # some cameras let only one client in


@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace", "multipart/x-mixed-replace; boundary=other"])
def test_the_boundary_is_taken_from_the_stream(serve, kind):
    server = serve(kind, [part(LANDSCAPE), part(PORTRAIT)])
    source = open_network_camera(f"http://{server.address}/", None)
    assert [source.read().shape for _ in range(2)] == [(48, 64, 3), (64, 48, 3)]
    source.close()


def test_a_boundary_need_not_begin_a_line(serve):
    parts = [b"--frame\r\n\r\n" + encode_jpeg(LANDSCAPE)]
    server = serve("multipart/x-mixed-replace; boundary=frame", parts)
    source = open_network_camera(f"http://{server.address}/", None)
    assert [source.read().shape for _ in range(4)] == [(48, 64, 3)] * 4
    source.close()


def test_an_address_without_a_readable_picture_is_an_error_at_once(serve):
    server = serve("image/jpeg", [b"<h1>Login</h1>"])
    with pytest.raises(CameraError, match="sends no picture that can be read"):
        Camera(f"http://{server.address}/x.jpg")


def test_a_stream_of_damaged_pictures_is_one_warning(serve, capfd):
    jpeg = encode_jpeg(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    whole = b"--frame\r\n\r\n" + jpeg[:-2] + b"\x12" * 20 + b"\xff\xd9\r\n"  # as many webcams send it
    half = b"--frame\r\n\r\n" + jpeg[: len(jpeg) // 2] + b"\xff\xd9\r\n"
    for parts, num_lines in (([whole] * 2, 0), ([half] * 2, 1)):
        server = serve("multipart/x-mixed-replace; boundary=frame", parts)
        source = open_network_camera(f"http://me:secret@{server.address}/", None)
        assert [source.read().shape for _ in range(4)] == [(48, 64, 3)] * 4
        source.close()
        said = capfd.readouterr().err
        assert said.count("\n") == num_lines, said
    assert f"warning: camera http://***@{server.address}/: a damaged picture" in said


def test_schemes_ignore_case(serve):
    server = serve("multipart/x-mixed-replace; boundary=frame", [part(LANDSCAPE)])
    with Camera(f"HTTP://{server.address}/") as camera:
        assert camera.read().shape == (48, 64, 3)


def test_a_snapshot_camera_that_breaks_off_reconnects(serve):
    server = serve("image/jpeg", [encode_jpeg(LANDSCAPE)])
    source = open_network_camera(f"http://{server.address}/x.jpg", 100)
    original = server.RequestHandlerClass.do_GET

    def broken(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"zz\r\n")

    server.RequestHandlerClass.do_GET = broken
    assert source.read() is None
    server.RequestHandlerClass.do_GET = original
    assert source.read() is not None


def test_a_broken_picture_is_left_out_and_the_end_is_the_end(serve):
    parts = [part(LANDSCAPE), b"--frame\r\nContent-Length: 5\r\n\r\nhello\r\n", part(PORTRAIT)]
    server = serve("multipart/x-mixed-replace; boundary=frame", parts, repeat=False)
    source = open_network_camera(f"http://{server.address}/", None)
    assert [source.read().mean() for _ in range(2)] == pytest.approx([50, 90], abs=2)
    assert source.read() is None


def test_a_camera_that_is_turned_over_is_logged_once(serve, caplog):
    parts = [part(LANDSCAPE)]
    server = serve("multipart/x-mixed-replace; boundary=frame", parts)
    with Camera(f"http://{server.address}/") as camera:
        assert camera.read().shape == (48, 64, 3)
        parts[0] = part(PORTRAIT)
        wait_until(lambda: camera.read().shape == (64, 48, 3))
        assert camera.read().shape == (64, 48, 3)
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "its images were 64x48, and are 48x64 now"
    ]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream"])
def test_the_address_of_a_picture_is_fetched_again_and_again(serve, kind):
    server = serve(kind, [encode_jpeg(LANDSCAPE)])
    with Camera(f"http://{server.address}/snapshot.jpg") as camera:
        assert camera.fps == 5
        frames = [camera.read_frame() for _ in range(4)]
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert server.paths.count("/snapshot.jpg") > 4
    assert isinstance(open_network_camera(f"http://{server.address}/", 20), SnapshotCamera)


def test_pictures_are_fetched_at_the_rate_and_missed_ones_are_not_made_up_for(serve, monkeypatch):
    clock, fetched = Clock(), []
    monkeypatch.setattr(network_camera, "time", clock)
    server = serve("image/jpeg", [encode_jpeg(LANDSCAPE)])
    source = SnapshotCamera(f"http://{server.address}/", 4)
    for delay in (0, 0, 0.1, 0, 10, 0, 0):  # seconds until the next read
        clock.now += delay
        assert source.read() is not None
        fetched.append(clock.now)
    assert fetched == [0.25, 0.5, 0.75, 1.0, 11.0, 11.0, 11.25]


def test_an_address_that_sends_something_else_is_an_error(serve):
    server = serve("text/html", [b"<h1>Hello</h1>"])
    with pytest.raises(CameraError, match=rf"no stream at http://{server.address}/: check"):
        Camera(f"http://{server.address}/")


@pytest.mark.parametrize(
    ("kind", "content"),
    [("multipart/x-mixed-replace; boundary=frame", part(LANDSCAPE)), ("image/jpeg", encode_jpeg(LANDSCAPE))],
)
def test_a_password_is_used_and_neither_kept_nor_printed(serve, tmp_path, kind, content):
    server = serve(kind, [content], password="admin:s:cret@/")
    url = f"http://admin:s%3Acret%40%2F@{server.address}/x?pwd=t0p"
    arguments = ("--label", "x", "--camera", url, "--headless", "--max-frames", 3, "--fps", 0)
    result = call_here("collect/capture.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "/x?pwd=t0p" in server.paths
    kept = (tmp_path / "data/sessions.jsonl").read_text()
    assert f"http://***@{server.address}/x?pwd=***" in kept
    wrong = call_here("collect/capture.py", "--label", "x", "--camera", url.replace("adm", "bad"), cwd=tmp_path)
    assert_one_line_error(wrong, "no stream at", "the user or the password is wrong (401)")
    for text in (kept, result.stdout, result.stderr, wrong.stderr):
        assert "cret" not in text
        assert "t0p" not in text


@pytest.mark.parametrize(
    ("user", "status", "words"),
    [
        ("me:secret@", 401, "the user or the password is wrong (401)"),
        ("", 401, "the camera asks for a user and a password (401): give http://USER:PASSWORD@..."),
        ("me:secret@", 403, "the user or the password is wrong, or this user may not see it (403)"),
        ("", 403, "the camera asks for a user and a password (403)"),
        ("me:secret@", 404, "the camera has nothing at this path (404): check what follows the host's name"),
        ("me:secret@", 503, "the camera itself answered with an error (503, service unavailable)"),
        ("", 599, "the camera itself answered with an error (599)"),
        ("me:sec#ret@", 401, "if the # belongs to the password, write %23 for it"),
        ("me:12/34@", 401, "if the / belongs to the password, write %2F for it"),
        ("me:12?34@", 401, "if the ? belongs to the password, write %3F for it"),
        ("me:12@34@", 401, "the user or the password is wrong (401)"),
    ],
)
def test_what_is_wrong_is_said(serve, user, status, words):
    server = serve("image/jpeg", [b""])

    def refuse(handler):
        handler.send_response(status)
        if status == 401:
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.RequestHandlerClass.do_GET = refuse
    with pytest.raises(CameraError) as error:
        open_network_camera(f"http://{user}{server.address}/x.jpg", None)
    assert words in str(error.value)
    for text in ("secret", "sec#", "12", "34@"):
        assert text not in str(error.value).replace(server.address, "")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (ConnectionRefusedError(), "nothing answers at this port"),
        (urllib.error.URLError(socket.gaierror(-2, "secret")), "knows no machine of this name"),
        (TimeoutError(), "no answer within 5 s"),
        (urllib.error.URLError(OSError(errno.EHOSTUNREACH, "x")), "no way leads to this address"),
    ],
)
def test_a_connection_that_fails_has_a_sentence(raised, words):
    assert words in describe_error(raised)
    assert describe_error(ConnectionResetError()) is None  # FFmpeg may get further


def test_a_camera_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr(network_camera, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(CameraError, match="no answer within"):
            open_network_camera(f"http://127.0.0.1:{silent.getsockname()[1]}/", None)
        port = silent.getsockname()[1]
    with pytest.raises(CameraError, match="nothing answers at this port"):
        open_network_camera(f"http://127.0.0.1:{port}/", None)


class RtspCamera(socketserver.StreamRequestHandler):
    """Asks for the user "me" with the password "right", by Digest, and has the path /stream."""

    def handle(self):
        request, headers = self.rfile.readline().decode().split(), http.client.parse_headers(self.rfile)
        values = urllib.request.parse_keqv_list(urllib.request.parse_http_list(headers.get("Authorization", "")[7:]))
        ha1, ha2 = (hashlib.md5(text.encode()).hexdigest() for text in ("me:cam:right", "DESCRIBE:" + request[1]))
        status = "401 Unauthorized"
        if values.get("response") == hashlib.md5(f"{ha1}:abc:{ha2}".encode()).hexdigest():
            status = "200 OK" if request[1].endswith("/stream") else "404 Not Found"
        challenge = 'WWW-Authenticate: Digest realm="cam", nonce="abc"\r\n'
        self.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: 1\r\n{challenge}\r\n".encode())


@pytest.mark.parametrize(
    ("user", "path", "words"),
    [
        ("", "stream", "asks for a user and a password (401): give rtsp://USER:PASSWORD@..."),
        ("me:wrong@", "stream", "the user or the password is wrong (401)"),
        ("me:right@", "x", "nothing at this path (404)"),
        ("me:right@", "stream", None),
    ],
)
def test_rtsp_says_what_is_wrong(user, path, words):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), RtspCamera) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        said = ask_rtsp(f"rtsp://{user}127.0.0.1:{server.server_address[1]}/{path}")
        server.shutdown()
    assert said is None if words is None else words in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://admin:secret@host/mjpeg", "http://***@host/mjpeg"),
        ("rtsp://admin:p@ss/w@host:554/s?x=1", "rtsp://***@host:554/s?x=***"),
        ("http://secret@host/", "http://***@host/"),
        ("http://host/x?pwd=secret&user=me", "http://host/x?pwd=***&user=***"),
        ("http://host/x?secret", "http://host/x?***"),
        ("http://host/x?a=secret=1;b=secret", "http://host/x?a=***;b=***"),
        ("rtsp://host/user=admin_password=secret_channel=1.sdp", "rtsp://host/user=***"),
        ("gst:rtspsrc user-id=secret user-pw='secret 2' ! y", "gst:rtspsrc user-id=*** user-pw=*** ! y"),
        ("GST:rtspsrc user-id=secret user-pw='secret 2' ! y", "GST:rtspsrc user-id=*** user-pw=*** ! y"),
        ("http://admin:se'cret@host/x", "http://***@host/x"),
        ('http://admin:se"cret@host/x', "http://***@host/x"),
        ("http://admin:se cret@host/x", "http://***@host/x"),
        ("http://host/x#access_token=se/cret", "http://host/x#***"),
        ("http://host/x;jwt=secret/y", "http://host/x;jwt=***/y"),
        ("onvif+http://admin:secret@host", "onvif+http://***@host"),
        ("rtsp:/admin:secret@host/x", "rtsp:/***@host/x"),
        ("admin:secret@http://host/x", "***@http://host/x"),
        (" http://a:secret@host/", " http://***@host/"),
        ("gst:x user-pw = secret ! y", "gst:x user-pw = *** ! y"),
        ('gst:x user-pw="se\\"cret x" ! y', "gst:x user-pw=*** ! y"),
        ("gst:rtspsrc location=rtsp://u:se'cret@h/x ! y", "gst:rtspsrc location=rtsp://***@h/x ! y"),
        ('gst:souphttpsrc location="http://h/x?k=secret" ! y', 'gst:souphttpsrc location="http://h/x?k=***" ! y'),
        ("synthetic:palm?seed=1", "synthetic:palm?seed=1"),
        ("folder/with=signs?", "folder/with=signs?"),
        ("0", "0"),
    ],
)
def test_secrets_are_hidden(text, shown):
    assert hide_secrets(text) == shown


@pytest.mark.parametrize(
    "url", ["ftp://me:secret@host/x", "rtsp://me:secret@127.0.0.1:9/x", "http://me:secret@[::1]:9/"]
)
def test_an_error_shows_no_password(url):
    with pytest.raises(CameraError) as error:
        Camera(url)
    assert "secret" not in str(error.value)
    assert "***@" in str(error.value)
