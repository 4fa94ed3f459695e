// How good the model is, training a better one, and taking it to another device.

import {$, act, drawLine, makeOption, setText} from "./dom.js";

let wanted = null;  // {id, file}: the file that this page has asked for
let choices = [], shownId = "";

// Return whether there are enough images, and it has not learned them yet.
export function isLearning(state) {
  return !state.ready && state.labels.filter(label => label.count >= state.min_examples).length > 1;
}

export function showModels(state) {
  setText($("accuracy"), isLearning(state) ? "It learns the images, and begins to answer soon." : state.accuracy);
  const {training} = state;
  $("train").hidden = training.running || Boolean(training.impossible);
  $("train").disabled = state.labels.length < 2;
  $("stop-training").hidden = !training.running;
  $("resume-training").hidden = !training.can_resume;
  setText($("training"), training.impossible || training.text
    || "Training takes minutes in place of seconds. The result is used if it is right more often.");
  $("curve").hidden = training.curve.length < 2;
  if (training.curve.length > 1) drawLine($("curve"), training.curve.map((value, index) =>
    [index / (training.curve.length - 1), value || 0]));
  showExport(state);
}

function showExport(state) {
  setText($("take"), state.ready ? "A file with what it has learned, or a zip with a program that runs it on a PC. "
    + "Both contain eight of your images, to check that it answers the same there."
    : "There is nothing to take along yet.");
  $("files").hidden = !state.ready;
  if (JSON.stringify(choices) !== JSON.stringify(state.export_choices)) {
    choices = state.export_choices;
    const before = $("target").value;
    $("target").replaceChildren(...choices.map(({target, device}) => makeOption(target, device)));
    if (choices.some(({target}) => target === before)) $("target").value = before;
    fillPrecisions();
  }
  const own = state.export, running = own.running;
  shownId = own.id || "";
  $("take-model").disabled = $("take-kit").disabled = $("target").disabled = $("precision").disabled = running;
  $("cancel-export").hidden = $("export-progress").hidden = !running;
  if (running && own.fraction !== null) $("export-progress").value = own.fraction;
  else $("export-progress").removeAttribute("value");
  $("taken").className = own.error ? "bad" : "";
  setText($("taken"), own.error || own.text);
  if (wanted && wanted.id === own.id && !running) {
    if (own.name) download(wanted.file, own.name);
    wanted = null;
  }
}

function fillPrecisions() {
  const choice = choices.find(({target}) => target === $("target").value) || {precisions: []}, before = $("precision").value;
  $("precision").replaceChildren(...choice.precisions.map(({name, text, size}) => makeOption(name, `${text}, ${size}`)));
  if (choice.precisions.some(({name}) => name === before)) $("precision").value = before;
}

async function take(file) {
  const id = await act("studio/export", {target: $("target").value, precision: $("precision").value});
  if (id !== undefined) wanted = {id, file};
}

function download(file, name) {
  const link = document.createElement("a");
  link.href = `studio/${file}?name=${encodeURIComponent(name)}`;
  link.download = "";
  link.click();
}

$("target").onchange = fillPrecisions;
$("take-model").onclick = () => take("model");
$("take-kit").onclick = () => take("kit.zip");
$("cancel-export").onclick = () => { act("studio/cancel_export", {id: shownId}); };
$("train").onclick = () => act("studio/train");
$("stop-training").onclick = () => act("studio/stop_training");
$("resume-training").onclick = () => act("studio/resume_training");
