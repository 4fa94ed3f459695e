"""Outputs over a network: a real MQTT broker, a real receiver of posts, and the page's metrics."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import LABELS, PATIENCE, ROOT, Clock, assert_one_line_error, call, call_here, finish, wait_until
from prometheus_client.parser import text_string_to_metric_families

from teachcam.collect.camera import Frame
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.errors import UserError
from teachcam.images import decode_image
from teachcam.live.prediction import Prediction
from teachcam.live.sinks import mqtt, webhook
from teachcam.live.sinks.base import FrameResult
from teachcam.live.sinks.home_assistant import discovery
from teachcam.live.sinks.mqtt import Mqtt
from teachcam.live.sinks.mqtt_address import PASSWORD_VARIABLE, broker_address, read_password
from teachcam.live.sinks.webhook import Webhook, receiver_url
from teachcam.live.web.server import Web

PASSWORD = "s3cret-pa55"
TOPIC = "home/kitchen"
IMAGE = render("palm", 3, 1, 320, 240)[0]
needs_mosquitto = pytest.mark.skipif(
    not (shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") and shutil.which("mosquitto_sub")),
    reason="needs mosquitto and mosquitto-clients",
)


def result(label: str, number: int = 0, file: str | None = None) -> FrameResult:
    prediction = Prediction(label, 0.75, {"a": 0.75, 'b "\\': 0.25})
    frame = Frame(IMAGE, number, number / 30, time.monotonic(), file)
    classifier = SimpleNamespace(provider="cpu", contract=Contract(labels=("a", 'b "\\'), input_size=(224, 224)))
    return FrameResult(frame, prediction, prediction, 0.004, 0.012, 30.0, classifier)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Spy:
    """Passes everything on to an object, and keeps which threads use it."""

    def __init__(self, target: object):
        self._target, self.threads = target, set()

    def __getattr__(self, name: str):
        self.threads.add(threading.get_ident())
        return getattr(self._target, name)


def free_port() -> int:
    with silent_port() as port:
        return port


class Broker:
    """A mosquitto of our own, which knows the user "me"; `messages` are the newest of each topic."""

    def __init__(self, folder: Path, port: int | None = None, tls: str = ""):
        self.folder, self.port, self.messages = folder, port or free_port(), {}
        passwords = folder / "passwords"
        if not passwords.exists():
            subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", PASSWORD], check=True)
        lines = f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n{tls}"
        if os.geteuid() == 0:
            lines += "user root\n"  # else it could not read the test's folder
        (folder / "mosquitto.conf").write_text(lines)
        self._start()

    def _start(self) -> None:
        path = os.environ["PATH"] + ":/usr/sbin"
        command = [shutil.which("mosquitto", path=path), "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """Kill it; what it retained is lost."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self._start()

    def newest(self) -> dict[str, str]:
        """What the broker has retained, by topic."""
        with self.subscribed() as messages:
            return dict(messages)

    @contextlib.contextmanager
    def subscribed(self) -> Iterator[list[tuple[str, str]]]:
        """All messages, with their topics: first what the broker has retained, then what comes meanwhile."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        messages, has_all = [], threading.Event()

        def on_message(_client, _data, message) -> None:
            has_all.set() if message.topic == "end" else messages.append((message.topic, message.payload.decode()))

        client = Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set("me", PASSWORD)
        client.on_connect = lambda *_: client.subscribe("#")
        client.on_subscribe = lambda *_: client.publish("end")  # it comes after what was retained
        client.on_message = on_message
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        try:
            assert has_all.wait(PATIENCE)
            yield messages
        finally:
            client.disconnect()
            client.loop_stop()

    @property
    def url(self) -> str:
        return f"mqtt://me@127.0.0.1:{self.port}/{TOPIC}"


@pytest.fixture
def broker(tmp_path, monkeypatch) -> Iterator[Broker]:
    for limit in ("START_WAIT", "CLOSE_WAIT"):
        monkeypatch.setattr(mqtt, limit, PATIENCE)
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder)
    yield broker
    broker.kill()


@contextlib.contextmanager
def live(trained, cwd, *options: str) -> Iterator[subprocess.Popen]:
    """`live/run.py` on the synthetic camera; what it says goes to the file stderr."""
    command = [sys.executable, ROOT / "live/run.py", "--model", trained / "model.onnx", "--camera", "synthetic"]
    environment = {**os.environ, PASSWORD_VARIABLE: PASSWORD}
    with (cwd / "stderr").open("w") as stderr:
        program = subprocess.Popen(
            [*command, "--headless", *options], cwd=cwd, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
        )
    try:
        yield program
    finally:
        program.kill()
        program.wait()


@needs_mosquitto
@pytest.mark.slow
def test_the_broker_gets_state_discovery_and_the_last_will(trained, broker, tmp_path):
    with live(trained, tmp_path, "--mqtt", broker.url) as program:
        wait_until(lambda: f"{TOPIC}/state" in broker.newest())
        messages = broker.newest()
        assert messages[f"{TOPIC}/availability"] == "online"
        state = json.loads(messages[f"{TOPIC}/state"])
        assert state["label"] in LABELS
        assert state["confidence"] == max(state["probabilities"].values())
        configs = {topic: json.loads(text) for topic, text in messages.items() if topic.startswith("homeassistant/")}
        assert sorted(config["name"] for config in configs.values()) == ["Confidence", "Label"]
        for topic, config in configs.items():
            assert topic == f"homeassistant/sensor/{config['unique_id']}/config"
            assert config["state_topic"] == f"{TOPIC}/state"
            assert config["availability_topic"] == f"{TOPIC}/availability"
            assert config["device"]["name"] == "kitchen"
        assert len({config["unique_id"] for config in configs.values()}) == 2
        assert len({str(config["device"]) for config in configs.values()}) == 1

        broker.restart()
        wait_until(lambda: f"{TOPIC}/state" in broker.newest())
        messages = broker.newest()
        assert json.loads(messages[f"{TOPIC}/state"])["frame"] > state["frame"]
        assert messages[f"{TOPIC}/availability"] == "online"
        assert len(messages) == 4
        program.kill()
        program.wait()
        wait_until(lambda: broker.newest()[f"{TOPIC}/availability"] == "offline")
    said = (tmp_path / "stderr").read_text()
    assert said.count("warning") == 1, said
    assert "the connection was lost" in said
    assert PASSWORD not in said


@needs_mosquitto
def test_a_program_that_ends_says_offline(broker, monkeypatch):
    sink = Mqtt(broker_address(broker.url), PASSWORD)
    sink(result("a"))
    wait_until(lambda: sink.written == 1)
    sink.close()
    messages = broker.newest()
    assert messages[f"{TOPIC}/availability"] == "offline"
    assert json.loads(messages[f"{TOPIC}/state"])["label"] == "a"


@needs_mosquitto
def test_the_state_comes_at_each_change_and_else_once_a_second(broker, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(mqtt, "time", clock)
    with broker.subscribed() as messages:
        sink = Mqtt(broker_address(broker.url), PASSWORD)
        for number in range(75):  # 2.22 s, the label changes at frame 10
            sink(result("a" if number < 10 else "b", number))
            wait_until(lambda: sink._queue.empty() and sink._state == sink._published and sink._sending is None)
            clock.now += 0.03
        sink.close()
        wait_until(lambda: (f"{TOPIC}/availability", "offline") in messages)
        states = [json.loads(text) for topic, text in messages if topic == f"{TOPIC}/state"]
    assert [(state["frame"], state["label"]) for state in states] == [(0, "a"), (10, "b"), (44, "b")]


@needs_mosquitto
def test_a_wrong_password_is_one_line(trained, broker, tmp_path):
    password = tmp_path / "password"
    password.write_text("wrong-one\n")
    live_options = ("--camera", "synthetic", "--headless", "--model", trained / "model.onnx", "--mqtt", broker.url)
    live_options += ("--max-frames", "5", "--mqtt-password-file", password)
    failed = call_here("live/run.py", *live_options, cwd=tmp_path)
    assert_one_line_error(failed, "--mqtt", "refused the user name or the password")
    assert "wrong-one" not in failed.stderr
    password.write_text(PASSWORD + "\n")
    done = call_here("live/run.py", *live_options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@needs_mosquitto
@pytest.mark.slow
def test_a_password_that_is_changed_later_is_a_warning(broker, capfd, monkeypatch):
    refusals, on_connect = [], Mqtt._on_connect

    def count_refusals(self, client, data, flags, reason, properties) -> None:
        on_connect(self, client, data, flags, reason, properties)
        refusals.append(reason) if reason.is_failure else None

    monkeypatch.setattr(Mqtt, "_on_connect", count_refusals)
    sink = Mqtt(broker_address(broker.url), PASSWORD)
    subprocess.run(["mosquitto_passwd", "-b", broker.folder / "passwords", "me", "another"], check=True)
    broker.restart()
    seen = ""

    def refused() -> bool:
        nonlocal seen
        seen += capfd.readouterr().err
        assert sink(result("a"))
        return "refused the connection" in seen

    wait_until(refused)
    wait_until(lambda: len(refusals) >= 3)
    sink.close()
    seen += capfd.readouterr().err
    assert seen.count("warning") == 2, seen  # the connection was lost, and is refused
    assert "another" not in seen
    assert PASSWORD not in seen


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_a_broker_with_tls(tmp_path, monkeypatch, capfd):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    certificate = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([openssl, *certificate, *names], check=True, capture_output=True)
    broker = Broker(tmp_path, tls=f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem\n")
    try:
        address = broker_address(f"mqtts://me@localhost:{broker.port}/{TOPIC}")
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            sink = Mqtt(address, PASSWORD)
            connected = sink._client.is_connected()
            thread = sink._client._thread
            sink.close()
            thread.join(PATIENCE)  # until then it holds the socket
            assert connected == trusted
            assert ("certificate verify failed" in capfd.readouterr().err) != trusted
    finally:
        broker.kill()
        gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["down", "silent"])
def test_a_broker_that_does_not_work_holds_nothing_up(broken, capfd, monkeypatch):
    """The loop's thread does nothing with the network, and the end does not wait for the broker."""
    pytest.importorskip("paho.mqtt.enums")
    monkeypatch.setattr(mqtt, "KEEPALIVE", 2)
    failures, warn = [], Mqtt._warn
    monkeypatch.setattr(Mqtt, "_warn", lambda *arguments: failures.append(arguments) or warn(*arguments))
    with silent_port() if broken == "silent" else contextlib.nullcontext(free_port()) as port:
        sink = finish(Mqtt, broker_address(f"mqtt://127.0.0.1:{port}/{TOPIC}"))
        sink._client = client = Spy(sink._client)
        for number in range(200):
            assert sink(result(str(number), number))
        wait_until(lambda: sink._queue.empty() and len(failures) > 1)
        assert client.threads
        assert threading.get_ident() not in client.threads
        finish(sink.close)
    assert sink._queue.maxsize == 1
    said = capfd.readouterr().err
    assert said.count("warning") == 1, said
    assert f"--mqtt 127.0.0.1:{port}" in said


@needs_mosquitto
@pytest.mark.slow
def test_a_broker_that_stops_gets_only_the_newest_state_when_it_goes_on(broker, monkeypatch):
    sink = Mqtt(broker_address(broker.url), PASSWORD)
    sink(result("first"))
    wait_until(lambda: json.loads(broker.newest().get(f"{TOPIC}/state", "{}")).get("label") == "first")
    os.kill(broker.process.pid, signal.SIGSTOP)
    # Long labels fill the socket's buffers, so that a publish stays unfinished.
    for number in range(300):
        sink(result(f"{number} " + "x" * 50_000, number))
        wait_until(lambda number=number: sink.written == 2 + number)
    queued = sum(len(packet["packet"]) for packet in list(sink._client._out_packet))
    assert queued < 200_000
    os.kill(broker.process.pid, signal.SIGCONT)
    wait_until(lambda: not sink._client._out_packet)
    sink(result("last"))
    wait_until(lambda: json.loads(broker.newest()[f"{TOPIC}/state"])["label"] == "last")
    sink.close()


def test_addresses_of_brokers():
    pytest.importorskip("paho.mqtt.enums")
    assert broker_address("mqtt://pi/home/door/") == (False, None, "pi", 1883, "home/door")
    assert broker_address("mqtts://a%40b@[::1]/x%20y") == (True, "a@b", "::1", 8883, "x y")
    for text in ("mqtt://me:hunter2@pi/t", "mqtt://me:hunt/er2@pi/t", "mqtt://me:hunter2@pi", "mqtt://:hunter2@pi/t"):
        with pytest.raises(UserError) as error:
            broker_address(text)
        assert "hunt" not in str(error.value)
    for text in ("pi/t", "http://pi/t", "mqtt://pi", "mqtt://pi/a/%23", "mqtt://pi/+", "mqtt://pi:0/t", "mqtt://@pi/t"):
        with pytest.raises(UserError, match="--mqtt"):
            broker_address(text)
    with pytest.raises(UserError, match=r"mqtt://USER@HOST"):
        Mqtt(broker_address("mqtt://pi/t"), "password without a user")


def test_the_password_comes_from_the_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert read_password(None) is None
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    assert read_password(None) == "of the environment"
    file = tmp_path / "password"
    for content in (b"", b"\nx", b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="--mqtt-password-file"):
            read_password(file)
    file.write_bytes("pä ss\r\n".encode())
    assert read_password(file) == "pä ss"
    with pytest.raises(UserError, match="No such file"):
        read_password(tmp_path / "none")


def test_without_paho_one_line_names_the_command(tmp_path):
    (tmp_path / "paho").mkdir()  # shadows the package, as an old version without its parts would
    (tmp_path / "paho" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    failed = call("live/run.py", "--mqtt", "mqtt://pi/t", cwd=tmp_path, env=environment)
    assert_one_line_error(failed, 'pip install "paho-mqtt>=2"')


def test_options_that_need_another(tmp_path):
    for options in (
        ["--post-image"],
        ["--mqtt-password-file", "x"],
        ["--post", "ftp://x"],
        ["--mqtt", "mqtt://a:b@c/d"],
    ):
        assert_one_line_error(call("live/run.py", *options, cwd=tmp_path), options[0])


@pytest.mark.parametrize(
    ("label", "state"),
    [
        ("None", "label None"),
        ("unavailable", "label unavailable"),
        ("none", "none"),
        ("off", "off"),
        ("1", "1"),
        ("unknown", "unknown"),
        ("it's <a>", "it's <a>"),
        ("x" * 300, "x" * 255),
    ],
)
def test_home_assistant_keeps_every_label(label, state):
    jinja2 = pytest.importorskip("jinja2")  # Home Assistant's templates are jinja2's
    config = discovery("id", TOPIC)["label"]
    values = {"value_json": {"label": label, "confidence": 0.5}}
    assert jinja2.Template(config["value_template"]).render(values).strip() == state
    assert json.loads(jinja2.Template(config["json_attributes_template"]).render(values)) == {"label": label}
    assert config["json_attributes_topic"] == config["state_topic"]


@needs_mosquitto
def test_a_label_with_a_meaning_of_its_own_is_one_warning(broker, capfd):
    sink = Mqtt(broker_address(broker.url), PASSWORD)
    shown = result("None")
    shown.classifier.contract = Contract(labels=("None", "a"), input_size=(224, 224))
    for _ in range(3):
        sink(shown)
    sink.close()
    said = capfd.readouterr().err
    assert said.count("warning") == 1, said
    assert 'shows the label None as "label None"' in said


# The webhook.


class Receiver(ThreadingHTTPServer):
    """A server that stores what is posted; `answer` is its status, which it gives when the gate is open."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts, self.headers, self.answer, self.gate = [], [], 200, threading.Event()
        self.gate.set()
        self.first_answers: list[int] = []  # of the first posts
        self.url = f"http://127.0.0.1:{self.server_port}/hook/token?x=1"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def handle_error(self, request, client_address) -> None:
        """Say nothing of a client that has gone."""

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.gate.wait(PATIENCE)
        self.server.headers.append(self.headers)
        self.server.posts.append(json.loads(body))
        answer = self.server.first_answers.pop(0) if self.server.first_answers else self.server.answer
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    monkeypatch.setattr(webhook, "TIMEOUT", PATIENCE)
    receiver = Receiver()
    yield receiver
    receiver.stop()


def test_each_change_of_the_label_is_posted(receiver):
    sink = Webhook(receiver.url, live=True, image=True)
    for number, label in enumerate("aaabba"):
        sink(result(label, number))
        wait_until(lambda: sink._queue.empty())
    sink.close()
    assert [(post["label"], post["frame"]) for post in receiver.posts] == [("a", 0), ("b", 3), ("a", 5)]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    image = decode_image(base64.b64decode(receiver.posts[0]["image"]))
    assert np.abs(image.astype(int) - IMAGE).mean() < 5


def test_each_picture_of_a_folder_is_posted_and_none_is_lost(receiver):
    receiver.gate.clear()
    sink = Webhook(receiver.url, live=False)
    threading.Thread(target=lambda: (wait_until(sink._queue.full), receiver.gate.set())).start()
    for number in range(20):
        sink(result("a", number, file=f"{number}.jpg"))
    sink.close()
    assert [post["file"] for post in receiver.posts] == [f"{number}.jpg" for number in range(20)]
    assert "image" not in receiver.posts[0]


def test_the_newest_state_is_posted_until_the_receiver_takes_it(receiver, capfd, monkeypatch):
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 0.01)
    receiver.first_answers = [500, 302, 404, 503]
    sink = Webhook(receiver.url, live=True, image=True)
    sink(result("a"))
    wait_until(lambda: len(receiver.posts) == 5)
    sink(result("b"))
    wait_until(lambda: len(receiver.posts) == 6)
    sink.close()
    assert [post["label"] for post in receiver.posts] == list("aaaaab")
    said = capfd.readouterr().err
    assert said.count("warning") == 1, said
    assert "answered 500 Internal Server Error; trying again" in said
    assert said.count("works again") == 1


def test_a_state_that_waits_gives_way_to_a_newer_one(receiver, monkeypatch):
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 1000)
    receiver.first_answers = [500]
    sink = Webhook(receiver.url, live=True)
    sink(result("old"))
    wait_until(lambda: sink.written == 1)
    receiver.delay = 0.1
    for label in ("older", "newest"):
        sink(result(label))
    wait_until(lambda: len(receiver.posts) >= 2 and receiver.posts[-1]["label"] == "newest")
    sink.close()
    assert [post["label"] for post in receiver.posts if post["label"] == "old"] == ["old"]


def test_the_pause_doubles_up_to_a_minute(receiver, monkeypatch):
    receiver.answer = 500
    sink = Webhook(receiver.url, live=True)
    pauses = []
    monkeypatch.setattr(sink._queue, "get", lambda timeout: pauses.append(timeout) or queue.Queue().get(False))
    sink(result("a"))  # the thread still waits in the queue's own get
    wait_until(lambda: len(pauses) >= 9)
    monkeypatch.undo()
    sink.close()
    assert pauses[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_closing_does_not_wait_for_a_receiver_that_fails(receiver, monkeypatch):
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 1000)
    receiver.answer = 500
    sink = Webhook(receiver.url, live=True)
    sink(result("a"))
    wait_until(lambda: sink.written == 1)
    sink.close()
    assert not sink._thread.is_alive()
    assert len(receiver.posts) == 1


def test_pictures_of_a_folder_are_not_posted_again(receiver, capfd):
    receiver.first_answers = [500]
    sink = Webhook(receiver.url, live=False)
    for number in range(3):
        sink(result("a", number, file=f"{number}.jpg"))
        wait_until(lambda: sink.written == number + 1)  # noqa: B023  # called at once
    sink.close()
    assert [post["frame"] for post in receiver.posts] == [0, 1, 2]
    said = capfd.readouterr().err
    assert "trying again" not in said
    assert "1 image was not posted: the receiver failed" in said


def test_a_receiver_that_fails_is_one_warning_until_it_works_again(receiver, capfd):
    sink = Webhook(receiver.url, live=True)
    for number, answer in enumerate((302, 500, 404, 200, 200, 503)):
        receiver.answer = answer
        sink(result(str(number)))
        wait_until(lambda: sink.written == number + 1)  # noqa: B023  # called at once
    sink.close()
    said = capfd.readouterr().err
    assert said.count("warning") == 2, said
    assert "answered 302" in said
    assert "answered 503" in said
    assert said.count("works again") == 1
    assert "token" not in said
    assert len(receiver.posts) == 6


@pytest.mark.parametrize("broken", ["dead", "slow", "silent"])
def test_a_receiver_that_does_not_work_holds_nothing_up(broken, receiver, capfd, monkeypatch):
    """The loop's thread does nothing with the network, and the end does not wait for one that never answers."""
    receiver.gate.clear()
    monkeypatch.setattr(webhook, "TIMEOUT", 0.1 if broken == "silent" else PATIENCE)
    with silent_port() as silent:
        port = {"dead": free_port(), "slow": receiver.server_port, "silent": silent}[broken]
        sink = Webhook(f"http://127.0.0.1:{port}/", live=True, image=True)
        sink._opener = opener = Spy(sink._opener)
        for number in range(100):
            assert sink(result(str(number), number))
        if broken != "slow":
            wait_until(lambda: sink._failing)
        receiver.gate.set()
        finish(sink.close)
    assert opener.threads == {sink._thread.ident}
    said = capfd.readouterr().err
    if broken == "slow":
        assert receiver.posts[-1]["label"] == "99"  # the newest is never the one that is dropped
        assert "were not posted" in said
    else:
        assert said.count("; the live loop goes on") == 1, said


def test_addresses_to_post_to():
    assert receiver_url("https://host:8123/api/webhook/x") == "https://host:8123/api/webhook/x"
    for text in (
        "host/x",
        "ftp://host",
        "http://",
        "http://host:x/",
        "http://h/a b",
        "http://h/ä",
        "http://u:hunter2@h/",
    ):
        with pytest.raises(UserError, match="--post") as error:
            receiver_url(text)
        assert "hunter2" not in str(error.value)


@pytest.mark.slow
def test_the_command_posts(trained, receiver, tmp_path):
    done = call(
        "live/run.py", "--model", trained / "model.onnx", "--camera", "synthetic", "--headless", "--max-frames", "20",
        "--post", receiver.url, "--post-image", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert receiver.posts[0]["label"] in LABELS
    assert decode_image(base64.b64decode(receiver.posts[0]["image"])).shape == (480, 640, 3)


# Prometheus.


def test_prometheus_reads_the_metrics():
    web = Web("127.0.0.1", 0, ["a"], SimpleNamespace(reconnecting=False, dropped=7))
    try:
        with urllib.request.urlopen(web.url + "metrics", timeout=PATIENCE) as reply:
            assert "teachcam_frames_total 0" in reply.read().decode()
        for number in range(5):
            web(result("a" if number else 'b "\\', number))
        with urllib.request.urlopen(web.url + "metrics", timeout=PATIENCE) as reply:
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = list(text_string_to_metric_families(reply.read().decode()))
    finally:
        web.close()
    samples = {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}
    assert samples["teachcam_frames_total",] == 5
    assert samples["teachcam_frames_dropped_total",] == 7
    assert samples["teachcam_camera_up",] == 1
    assert samples["teachcam_predictions_total", "a"] == 4
    assert samples["teachcam_predictions_total", 'b "\\'] == 1
    assert samples["teachcam_predictions_total", "unknown"] == 0
    assert samples["teachcam_latency_seconds_count",] == 5
    assert samples["teachcam_latency_seconds_sum",] == pytest.approx(0.02)
    assert samples["teachcam_latency_seconds_bucket", "0.002"] == 0
    assert samples["teachcam_latency_seconds_bucket", "0.005"] == 5
    assert samples["teachcam_age_seconds_bucket", "0.01"] == 0
    assert samples["teachcam_age_seconds_bucket", "+Inf"] == 5
    assert samples["teachcam_fps",] == 30
    assert {one.name: one.type for one in families}["teachcam_age_seconds"] == "histogram"


def test_the_metrics_need_the_token_off_loopback():
    web = Web("0.0.0.0", 0, ["a"], SimpleNamespace(reconnecting=False, dropped=0))
    try:
        port, token = web.url.split(":")[2].partition("/")[0], web.url.partition("token=")[2]
        address = f"http://127.0.0.1:{port}/metrics"
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(address, timeout=PATIENCE):
            pass
        assert refused.value.code == 403
        refused.value.close()
        request = urllib.request.Request(address, headers={"Authorization": f"token {token}"})
        for allowed in (request, f"{address}?token={token}"):
            with urllib.request.urlopen(allowed, timeout=PATIENCE) as reply:
                assert reply.status == 200
    finally:
        web.close()
