"""The report of a run: one HTML file that opens offline."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import jinja2
import numpy as np

from collect.dataset import write_atomic

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>teachcam: {{ name }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
  .figure { font-size: 3rem; font-weight: 700; margin: 0 }
  .warning { background: #fff3cd; padding: .6rem 1rem; border-radius: .4rem }
  .wide { overflow-x: auto }
  table { border-collapse: collapse } th, td { padding: .3rem .7rem; text-align: right } th { font-weight: 600 }
  td.cell { border: 1px solid #fff; min-width: 3rem }
  figure { display: inline-block; margin: 0 .6rem .6rem 0; width: 150px; vertical-align: top; font-size: .85rem;
    overflow-wrap: anywhere }
  figure img { width: 100%; border-radius: .3rem; display: block }
</style>
<h1>{{ name }}: {{ run.backbone }}, {{ run.strategy }}</h1>
{% if score.accuracy is not none %}
<p class="figure">{{ "%.1f" % (100 * score.accuracy) }} %</p>
<p>of {{ score.frames }} held-out frames answered right{% if sessions %}, from
{{ sessions | length }} session{{ "s" if sessions | length > 1 }} that training never saw{% endif %}.</p>
{% if sessions %}<details><summary>Which sessions</summary>{{ sessions | join(", ") }}</details>{% endif %}
{% else %}<p class="warning">Nothing could be held out: no accuracy was measured.</p>{% endif %}
{% if run.test %}<p class="figure">{{ "%.1f" % (100 * run.test.accuracy) }} %</p>
<p>of {{ run.test.frames }} test frames, by which nothing was chosen:
{{ run.test.sessions | join(", ") }}.</p>{% endif %}
{% if run.split == "frames" %}<p class="warning">The held-out frames were chosen at random: their neighbours were
trained on. The figure says little about another place.</p>{% endif %}
{% if run.cut_labels %}<p class="warning">
This figure is optimistic: {{ run.cut_labels | join(", ") }} had too few
sessions to hold one out, so their last frames were tested on the first ones. Record more of
them, in other places.</p>{% endif %}

<h2>By label</h2>
<div class="wide"><table><tr><th></th><th>held-out frames</th><th>precision</th><th>recall</th></tr>
{% for label, row in score.per_label.items() %}<tr><th>{{ label }}</th><td>{{ row.frames }}</td>
<td>{{ row.precision | percent }}</td><td>{{ row.recall | percent }}</td></tr>{% endfor %}</table></div>

<h2>What was taken for what</h2>
<div class="wide"><table><tr><th>true label</th>{% for label in labels %}<th>answer {{ label }}</th>{% endfor %}</tr>
{% for row in score.confusion %}{% set all = row | sum %}<tr><th>{{ labels[loop.index0] }}</th>
{% set own = loop.index0 %}{% for count in row %}<td class="cell" style="background: rgba(
{{- "46,125,50" if loop.index0 == own else "198,40,40" }},{{ "%.2f" % (0.7 * count / all if all else 0) }})">
{{ count }}</td>{% endfor %}</tr>{% endfor %}</table></div>

<h2>The worst mistakes</h2>
{% for mistake in mistakes %}<figure><img src="{{ mistake.image }}" alt="">
{{ mistake.true }} taken for {{ mistake.answer }}, {{ "%.2f" % mistake.confidence }}<br>{{ mistake.file }}</figure>
{% else %}<p>None.</p>{% endfor %}

{% if score.ece is not none %}
<h2>Confidence</h2>
<p>On the average an answer's confidence is {{ "%.1f" % (100 * score.ece) }} points away from how often such answers are
right (on the frames that it was adjusted on).{% if run.unknown_threshold %} Below
{{ "%.2f" % run.unknown_threshold }} the answer is <em>unknown</em>.{% endif %}</p>{% endif %}

<h2>The run</h2>
{% if run.tried | length > 1 %}
<div class="wide"><table><tr><th>tried</th><th>held-out accuracy</th><th>seconds</th></tr>
{% for row in run.tried %}<tr><th>{{ row.strategy }}</th><td>{{ row.held_out_accuracy | percent }}</td>
<td>{{ "%.1f" % row.seconds }}</td></tr>{% endfor %}</table></div>{% endif %}
<p>{% if run.held_out_learned_later and score.frames %}After it was measured on the held-out frames, it learned them
too. {% endif %}Trained on {{ run.frames }} frames in {{ "%.1f" % run.seconds }} s ({{ run.epochs | length }} epochs on
{{ run.device }}). Starting weights: {{ run.weights }}.{% if run.skipped %} Skipped, because they can't be read:
{{ run.skipped | join("; ") }}.{% endif %}</p>
</html>
"""


def write_report(path: Path, metrics: dict, mistakes: list[dict]) -> None:
    """Write the report of a run.

    `metrics` is what metrics.json holds; each mistake has `frame` (uint8 BGR), `true`, `answer`, `confidence`, `file`.
    """
    environment = jinja2.Environment(autoescape=True)
    environment.filters["percent"] = lambda value: "" if value is None else f"{100 * value:.1f} %"
    page = environment.from_string(_PAGE).render(
        name=path.parent.name,
        run=metrics,
        score=metrics["held_out"],
        sessions=metrics["held_out_sessions"],
        labels=metrics["labels"],
        mistakes=[{**mistake, "image": _data_url(mistake["frame"])} for mistake in mistakes],
    )
    write_atomic(path, page.encode(errors="replace"))  # a file's name may be no text at all


def _data_url(frame: np.ndarray) -> str:
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (300, round(300 * height / width)), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1]).decode()
