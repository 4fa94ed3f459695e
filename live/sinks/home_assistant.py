"""How Home Assistant shows the predictions that are published by MQTT, without a line of configuration."""

from __future__ import annotations

from typing import Iterable, Iterator

from teachcam import __version__
from teachcam.labels import NO_VALUE, UNKNOWN

MAX_STATE = 255  # characters; Home Assistant shows "unknown" for a longer state
EXPIRE_AFTER = 30  # seconds without a state until Home Assistant shows "unavailable", for example for a lost camera


def describe_labels(labels: Iterable[str]) -> Iterator[str]:
    """Yield a line for each label that has a meaning of its own in Home Assistant, and is shown as something else."""
    for shown in sorted(set(labels) & set(NO_VALUE)):
        how = "an unknown state" if shown == UNKNOWN else f'"label {shown}"'
        yield (
            f"Home Assistant shows the label {shown} as {how}, because it has a meaning there; "
            "better give it another name"
        )


def discovery(identifier: str, topic: str) -> dict[str, dict[str, object]]:
    """Return the configuration of each sensor for Home Assistant's discovery."""
    common = {
        "state_topic": f"{topic}/state",
        "availability_topic": f"{topic}/availability",
        "expire_after": EXPIRE_AFTER,
        "device": {
            "identifiers": [identifier],
            "name": topic.rpartition("/")[2],
            "manufacturer": "teachcam",
            "sw_version": __version__,
        },
        "origin": {"name": "teachcam", "sw_version": __version__},
    }
    # A state of None or unavailable would be none at all: it gets a word before it. The model's own "unknown" stays.
    no_value = [name for name in NO_VALUE if name != UNKNOWN]
    label = {
        "name": "Label",
        "value_template": (
            "{% set label = value_json.label %}"
            f"{{{{ ('label ' ~ label if label in {no_value} else label)[:{MAX_STATE}] }}}}"
        ),
        # The label as it is. Not the whole state, because its times change every second, and each change is stored.
        "json_attributes_topic": f"{topic}/state",
        "json_attributes_template": "{{ {'label': value_json.label} | tojson }}",
        "icon": "mdi:camera",
    }
    confidence = {
        "name": "Confidence",
        "value_template": "{{ (value_json.confidence * 100) | round(1) }}",
        "unit_of_measurement": "%",
        "state_class": "measurement",
    }
    sensors = {"label": label, "confidence": confidence}
    return {name: {**common, **own, "unique_id": f"{identifier}_{name}"} for name, own in sensors.items()}
