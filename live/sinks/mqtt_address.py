"""The address of an MQTT broker, as `--mqtt` takes it, and its password."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from teachcam.errors import UserError

PASSWORD_VARIABLE = "TEACHCAM_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerAddress(NamedTuple):
    """The address of a broker, and the topic to publish under."""

    tls: bool
    user: str | None
    host: str
    port: int
    topic: str  # without a slash at its ends


def broker_address(text: str) -> BrokerAddress:
    """Parse the value of --mqtt, for argparse.

    Args:
        text: `mqtt://[USER@]HOST[:PORT]/TOPIC`, or `mqtts://` for TLS. %40 stands for an @ in the user's name.

    Raises:
        UserError: It is something else, it has a password, or paho-mqtt 2 is not installed. The message never repeats
            the text, because the text may have a password.
    """
    try:
        import paho.mqtt.enums  # noqa: F401  # paho-mqtt 1 does not have it
    except ImportError:
        raise UserError('--mqtt needs one more package: pip install "paho-mqtt>=2"') from None
    form = UserError("--mqtt: give mqtt://[USER@]HOST[:PORT]/TOPIC or mqtts://..., for example mqtt://me@pi/home/door")
    try:
        text.encode()  # raises for bytes that are no UTF-8
        parts = urlsplit(text)
        user, at, _ = parts.netloc.rpartition("@")
        if ":" in user:
            raise UserError(
                f"--mqtt: leave the password out of the address, where others see it: put it into the environment "
                f"variable {PASSWORD_VARIABLE}, or into a file for --mqtt-password-file"
            )
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        raise form from None
    topic = unquote(parts.path).strip("/")
    if parts.scheme not in PORTS or not host or port == 0 or parts.query or parts.fragment or (at and not user):
        raise form
    if not topic or topic.startswith("$") or re.search("[+#\0]", topic) or len(topic.encode()) > 1000:
        raise UserError("--mqtt: the address must end in a topic without + and #, for example mqtt://me@pi/home/door")
    return BrokerAddress(parts.scheme == "mqtts", unquote(user) or None, host, port or PORTS[parts.scheme], topic)


def read_password(file: Path | None) -> str | None:
    """Return the broker's password: the file's first line, else what TEACHCAM_MQTT_PASSWORD holds, else None.

    Raises:
        UserError: The file can't be read or is empty.
    """
    if file is None:
        return os.environ.get(PASSWORD_VARIABLE) or None
    try:
        password = file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise UserError(f"--mqtt-password-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--mqtt-password-file {file}: not a text file in UTF-8") from None
    if not password:
        raise UserError(f"--mqtt-password-file {file}: its first line is empty, write the password there")
    return password
