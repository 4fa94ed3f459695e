"""Publish the newest prediction to an MQTT broker: `--mqtt mqtt://user@host/home/kitchen`.

    TOPIC/state                                   the prediction, JSON, retained
    TOPIC/availability                            online or offline, retained; the broker itself says offline if we die
    homeassistant/sensor/ID_label/config          makes Home Assistant show the label, without a line of configuration
    homeassistant/sensor/ID_confidence/config     the same for the confidence, in percent

The state is published when the label changes, and otherwise once a second.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

from teachcam.cli import first_line
from teachcam.errors import UserError
from teachcam.live.sinks.base import FrameResult, ThreadedSink, lower_thread_priority
from teachcam.live.sinks.home_assistant import describe_labels, discovery
from teachcam.live.sinks.mqtt_address import BrokerAddress

if TYPE_CHECKING:
    from paho.mqtt.client import Client

INTERVAL = 1.0  # seconds between two states while the label stays the same
START_WAIT = 1.0  # seconds to wait at start for the broker's answer, to report a wrong password as an error
CLOSE_WAIT = 1.0  # seconds that the last message may take
KEEPALIVE = 15  # seconds; a broker that is silent for longer is connected to again
WARNING_INTERVAL = 60.0  # seconds between two warnings, so that a connection that comes and goes fills no log
CREDENTIALS_REFUSED = (134, 135)  # reason codes: bad user name or password, not authorized

logger = logging.getLogger(__name__)


class Mqtt(ThreadedSink):
    """A sink that publishes the newest prediction to an MQTT broker, and announces it to Home Assistant.

    A broker that is down, slow or silent delays nothing. It is one warning, and paho connects again by itself. Only the
    newest state is kept meanwhile; it is published when the broker is back.

    A wrong password is an error if the broker says so within a second at start: somebody is there to read it. If the
    broker refuses it later, it is a warning, and the loop goes on.

    Args:
        broker: Its address, and the topic to publish under.
        password: The user's password, or None.

    Raises:
        UserError: There is a password but no user, or the broker refused both at start.
    """

    def __init__(self, broker: BrokerAddress, password: str | None = None):
        if password and broker.user is None:
            raise UserError("--mqtt: there is a password but no user: give mqtt://USER@HOST/TOPIC")
        self._broker, self._topic = broker, broker.topic
        # A readable name and a checksum, because two topics may differ in other characters only.
        slug = re.sub("[^a-zA-Z0-9]+", "_", broker.topic).strip("_")[:40]
        self._id = f"teachcam_{slug}_{zlib.crc32(broker.topic.encode()):08x}"
        self._labels: tuple[str, ...] | None = None  # of the model, as far as they were checked
        self._last_label: str | None = None
        self._next_time = float("-inf")  # seconds, of time.monotonic()
        self._state: str | None = None  # the newest
        self._published: str | None = None  # the state that was published last on this connection
        self._sending: int | None = None  # paho's number of that message, until it is sent
        self._lock = threading.Lock()  # of the three above, which two threads use
        self._warned: set[str] = set()  # the kinds of trouble that were reported since the last connection
        self._last_warning: dict[str, float] = {}  # seconds, of time.monotonic(), by kind
        self._starting, self._closing = True, False
        self._answered, self._ended = threading.Event(), threading.Event()
        self._refused = False  # whether the broker refused the user or the password at start
        self._client = self._connect(password)
        if not self._answered.wait(START_WAIT):
            self._warn("lost", "no answer yet")
        self._starting = False
        if self._refused:
            self._closing = True
            self._client.disconnect()
            raise UserError(f"{self._name()}: the broker refused the user name or the password")
        super().__init__(live=True, max_queued=1, keep_newest=True)

    def _name(self) -> str:
        return f"--mqtt {self._broker.host}:{self._broker.port}"

    def _connect(self, password: str | None) -> Client:
        """Start paho's thread, which connects, and connects again whenever the connection is lost."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        # A fixed id: when the broker sees it again, it ends the old connection with its last will. With a random id,
        # that will would come later and overwrite "online".
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._id)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, password)
        if self._broker.tls:
            client.tls_set()
        client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 30)
        client.on_pre_connect = lambda *_: lower_thread_priority(5)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        client.connect_async(self._broker.host, self._broker.port, KEEPALIVE)
        client.loop_start()
        return client

    # The loop's thread.

    def _prepare(self, result: FrameResult) -> FrameResult | None:
        if result.labels != self._labels:  # at the start, and for a newer model
            self._labels = result.labels
            for line in describe_labels(result.labels):
                logger.warning(f"warning: {self._name()}: {line}")
        now, label = time.monotonic(), result.prediction.label
        if label == self._last_label and now < self._next_time:
            return None
        self._last_label, self._next_time = label, now + INTERVAL
        return result

    # The sink's thread.

    def _write(self, entry: FrameResult) -> None:
        state = json.dumps(entry.to_dict())
        with self._lock:
            self._state = state
        self._publish_state()

    def _publish_state(self) -> None:
        """Publish the newest state. While the one before is not sent, do nothing, so that none queue up in paho."""
        with self._lock:
            if self._state != self._published and self._sending is None and self._client.is_connected():
                message = self._client.publish(f"{self._topic}/state", self._state, retain=True)
                if message.rc == 0:
                    self._published, self._sending = self._state, message.mid

    def _finish(self) -> None:
        self._closing = True
        if self._client.is_connected():
            self._publish_state()
            # A broker publishes the last will only if the connection breaks, not if we end it.
            offline = self._client.publish(f"{self._topic}/availability", "offline", qos=1, retain=True)
            if offline.rc == 0:
                offline.wait_for_publish(CLOSE_WAIT)
            self._ended.clear()
            self._client.disconnect()
            self._ended.wait(CLOSE_WAIT)
        else:
            self._client.disconnect()  # ends paho's thread; not joined, because it may wait for a connection

    # paho's thread.

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = self._starting and reason.value in CREDENTIALS_REFUSED
            if not self._refused:
                self._warn("refused", f"the broker refused the connection: {reason}")
        elif self._closing:
            client.disconnect()
        else:
            if self._warned:
                logger.info(f"{self._name()}: connected")
            self._warned.clear()
            with self._lock:
                self._published = self._sending = None
            for sensor, config in discovery(self._id, self._topic).items():
                client.publish(f"homeassistant/sensor/{self._id}_{sensor}/config", json.dumps(config), retain=True)
            client.publish(f"{self._topic}/availability", "online", retain=True)
            self._publish_state()
        self._answered.set()

    def _on_publish(self, _client: Client, _data: Any, number: int, _reason: Any, _properties: Any) -> None:
        with self._lock:
            if number != self._sending:
                return
            self._sending = None
        self._publish_state()  # a newer one may have come meanwhile

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this while it handles the error
        self._warn("lost", getattr(error, "strerror", None) or first_line(error or OSError("no connection")))
        self._answered.set()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._refused:
            self._warn("lost", f"the connection was lost ({reason})")
        self._ended.set()

    def _warn(self, kind: str, reason: str) -> None:
        """Log one warning of each kind until the broker is connected again."""
        now = time.monotonic()
        recent = now - self._last_warning.get(kind, float("-inf")) < WARNING_INTERVAL
        if kind not in self._warned and not recent and not self._closing:
            logger.warning(f"warning: {self._name()}: {reason}; trying again; the live loop goes on")
            self._last_warning[kind] = now
        self._warned |= {kind, "lost"}  # after a refusal, the end of the connection is no news
