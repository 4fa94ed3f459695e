// Teaching on the page: labels and their cards, recording, place and camera.

import {$, act, getJson, hush, make, makeOption, plural, say, setText} from "./dom.js";
import {imageUrl, openGallery, openRejected} from "./gallery.js";
import {showModels} from "./models.js";

export let studio = null;  // the newest state, with the color of each label

const COLORS = ["#2a78d6", "#d9541e", "#1f9d55", "#a24bd0", "#c98a00", "#d43f7a", "#0f9fb0", "#7a6a52", "#5b63e0", "#8aa012",
  "#b0413e", "#5f7d8c"];
const RENEWAL = 1000;  // ms; the device ends a recording that nobody asks for any more
const SHORT = 600;  // ms; whoever holds a button for less may not know that it must be held

// Recording. One at a time: `hold` begins it, `release` by the same key, pointer or timer ends it.

let held = null;  // {label, by, since, renewal, wentWell}
let page = "";

function hold(label, by) {
  if (held) return;
  if (document.activeElement === $("place-name")) $("place-name").blur();  // what was typed is set first
  held = {label, by, since: Date.now(), wentWell: true};
  const own = held;
  const record = async () => { own.wentWell = await act("studio/record", {label, page}) !== undefined && own.wentWell; };
  record();
  held.renewal = setInterval(record, RENEWAL);
  showOverlay(`recording ${label}`, true);
}

async function release(by) {
  if (!held || held.by !== by) return;
  const own = held;
  forgetHold();
  const count = await act("studio/stop", {label: own.label});
  if (count === undefined || !own.wentWell) return;
  const isShort = by !== "hands-free" && Date.now() - own.since < SHORT && count < 4;
  say(`recorded ${plural(count, "image")} of ${own.label}` + (isShort ? ": keep the button down to record more" : ""));
}

function forgetHold() {
  clearInterval(held.renewal);
  held = null;
  showOverlay("");
}

// End what is being recorded, whatever holds it. With a reason, the device is out of reach.
export function endRecording(reason = "") {
  cancelHandsFree();
  if (!held) return;
  if (!reason) { release(held.by); return; }
  forgetHold();
  say(reason, {bad: true});
}

function showOverlay(text, isRecording = false) {
  $("overlay").hidden = !text;
  $("overlay").className = isRecording ? "recording" : "";
  setText($("overlay"), text);
}

// Hands-free: a countdown, then a recording of some seconds.

let timer = null, countdownLabel = null;

function startHandsFree(label) {
  if (timer) { cancelHandsFree(); if (held) release("hands-free"); return; }
  if (held) return;
  const start = Date.now() + 1000 * $("delay").value, end = start + 1000 * $("duration").value;
  countdownLabel = label;
  const tick = () => {
    const now = Date.now(), seconds = Math.ceil(((now < start ? start : end) - now) / 1000);
    if (now >= end) { cancelHandsFree(); release("hands-free"); return; }
    if (now >= start && !held) hold(label, "hands-free");
    if (now >= start && held && held.by !== "hands-free") { cancelHandsFree(); return; }  // another began meanwhile
    showOverlay(now < start ? `${label} in ${seconds}` : `recording ${label}: ${seconds}`, now >= start);
  };
  timer = setInterval(tick, 100);
  tick();
}

function cancelHandsFree() {
  clearInterval(timer);
  timer = countdownLabel = null;
  showOverlay("");
}

let storage = {getItem: () => null, setItem: () => {}};
try { storage = localStorage; } catch (error) { /* a browser may refuse it to a page that another one shows */ }
for (const [id, seconds, usual] of [["delay", [1, 3, 5, 10], 3], ["duration", [2, 4, 8, 15], 4]]) {
  $(id).append(...seconds.map(one => makeOption(one, `${one} s`)));
  $(id).value = storage.getItem(id) || usual;
  if (!$(id).value) $(id).value = usual;
  $(id).onchange = () => storage.setItem(id, $(id).value);
}

// Keys

export function pressStudioKey(event) {
  const {key} = event, withControl = event.ctrlKey || event.metaKey;
  if (withControl) {
    if (key === "z" || key === "y") { event.preventDefault(); takeBack(key === "y" || event.shiftKey ? "redo" : "undo"); }
    return;
  }
  if (key >= "1" && key <= "9") {
    const label = studio.labels[key - 1];
    if (label) hold(label.name, `key ${key}`);
    else say(`there is no label ${key}: there ${studio.labels.length === 1 ? "is" : "are"} ${studio.labels.length}`);
  }
  if (key === "u") takeBack("undo");
  if (key === "r") takeBack("redo");
  if (key === "m") $("squeeze").click();
  if (key === "Escape") endRecording();
  if (key === "n") { event.preventDefault(); $("new-label").focus(); }
}

export function releaseStudioKey(event) {
  release(`key ${event.key}`);
}

// Undo

export async function takeBack(way) {
  if (held) { say("let go of the button first"); return; }
  const text = await act(`studio/${way}`);
  if (text !== undefined) say(text);
}

export function sayUndoable(text) {
  say(text, {undo: () => takeBack("undo")});
}

// Cards

function makeCard() {
  const card = make("div", "card"), head = make("div", "row"), button = make("button", "hold"), tools = make("div", "row");
  const label = () => card.dataset.label;
  head.append(make("span", "key"), make("h3"), make("span", "count"));
  head.firstChild.setAttribute("aria-hidden", "true");
  button.append(make("span", "", "Hold to record"), make("span", "spoken"));
  button.onpointerdown = event => {
    if (event.button) return;
    event.preventDefault();
    button.focus();
    button.setPointerCapture(event.pointerId);
    hold(label(), `pointer ${event.pointerId}`);
  };
  button.onpointerup = button.onpointercancel = event => release(`pointer ${event.pointerId}`);
  button.oncontextmenu = event => event.preventDefault();
  button.onkeydown = event => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (!event.repeat) hold(label(), `key ${event.key}`);
  };
  const addTool = (text, action) => {
    const element = make("button", "small", text);
    element.onclick = () => action(label());
    tools.append(element);
  };
  addTool("Images", openGallery);
  addTool("Hands-free", startHandsFree);
  addTool("Change", openLabel);
  card.append(head, button, make("div", "newest"), tools);
  return card;
}

function fillCard(card, label, index, state) {
  const [head, button, newest, tools] = card.children;
  if (card.dataset.label !== label.name) {
    card.dataset.label = label.name;
    setText(head.children[1], label.name);
    setText(button.lastChild, ` ${label.name}`);
    for (const tool of tools.children) tool.setAttribute("aria-label", `${tool.textContent} of ${label.name}`);
  }
  card.style.setProperty("--color", COLORS[label.color % COLORS.length]);
  setText(head.firstChild, index < 9 ? String(index + 1) : "");
  head.firstChild.hidden = index > 8;
  const missing = Math.max(0, state.min_examples - label.count);
  const recordings = label.sessions ? ` in ${plural(label.sessions, "recording")}` : "";
  setText(head.lastChild, `${plural(label.count, "image")}${recordings}`
    + (label.count && missing ? `; ${missing} more to begin` : label.learned < label.count && !missing ? ", learning" : ""));
  const recorded = state.recording === label.name, byOther = state.recording !== null && state.recording_page !== page;
  card.classList.toggle("recording", recorded);
  button.disabled = byOther;
  setText(button.firstChild, !recorded ? "Hold to record" : byOther ? "Another page records"
    : held && held.by === "hands-free" ? "Recording" : "Recording: let go to stop");
  setText(tools.children[1], countdownLabel === label.name ? "Stop" : "Hands-free");
  if (newest.dataset.names !== label.newest.join()) {
    newest.dataset.names = label.newest.join();
    newest.replaceChildren(...label.newest.map(name => {
      const image = make("img");
      image.src = imageUrl(label.name, name);
      image.alt = "";
      return image;
    }));
  }
}

// Return what to do next, as long as there is something.
function nextStep(state) {
  const {labels, places} = state, lacking = labels.find(label => label.count < state.min_examples);
  if (!labels.length) return "First: name what the camera should tell apart, such as thumbs_up and thumbs_down. Press Enter after each name.";
  if (labels.length < 2) return "Now a second label. A label none, for images that show none of the others, helps, too.";
  if (lacking) return `Next: let the camera see ${lacking.name}, and hold its button for a second or two. ${lacking.count
    ? plural(state.min_examples - lacking.count, "more image") + " to begin." : "Move a little meanwhile."}`;
  if (places.length < 2 && state.ready) return "It answers. Next: give another place a name above, and record every label there, too.";
  return "";
}

export function showStudio(state, ownPage) {
  page = ownPage;
  const isFirst = studio === null;
  studio = state;
  studio.colors = Object.fromEntries(state.labels.map(label => [label.name, COLORS[label.color % COLORS.length]]));
  if (isFirst) for (const section of document.querySelectorAll(".studio-only")) section.hidden = false;
  const cards = $("cards");
  while (cards.children.length > state.labels.length) cards.lastChild.remove();
  while (cards.children.length < state.labels.length) cards.append(makeCard());
  state.labels.forEach((label, index) => fillCard(cards.children[index], label, index, state));
  setText($("guide"), nextStep(state));
  for (const way of ["undo", "redo"]) {
    $(way).disabled = !state[way];
    $(way).title = state[way] ? `${way}: ${state[way]}` : `nothing to ${way}`;
  }
  $("show-rejected").hidden = !state.rejected;
  setText($("show-rejected"), `Taken out: ${plural(state.rejected, "image")}`);
  if (document.activeElement !== $("place-name") && $("place-name").value !== state.place) $("place-name").value = state.place;
  if ($("places").dataset.names !== state.places.join()) {
    $("places").dataset.names = state.places.join();
    $("places").replaceChildren(...state.places.map(name => makeOption(name)));
  }
  $("mirror").setAttribute("aria-pressed", state.mirrored);
  const hints = state.labels.length ? state.hints : [];  // before that they would be about nothing
  setText($("hints"), [...hints, state.problem, state.dropped ? `the disk is too slow: ${plural(state.dropped, "image")} lost` : ""]
    .filter(Boolean).join("; "));
  showModels(state);
}

$("undo").onclick = () => takeBack("undo");
$("redo").onclick = () => takeBack("redo");
$("show-rejected").onclick = openRejected;
$("add").onsubmit = async event => {
  event.preventDefault();
  const field = $("new-label"), label = field.value;
  field.value = "";  // at once: the next label may be typed before the answer comes
  if (!label.trim()) return;
  if (await act("studio/add", {label}) !== undefined) say(`added ${label}`);
  else field.value = field.value || label;
};

// Place and camera

$("place-name").onkeydown = event => { if (event.key === "Enter") $("place-name").blur(); };
$("place-name").onchange = async () => {  // when it is left, too: what it shows is what is recorded
  const place = $("place-name").value;
  if (await act("studio/place", {place}) !== undefined) say(`recording in ${place} from now on`);
  else if (studio) $("place-name").value = studio.place;
};
$("mirror").onclick = () => act("studio/mirror", {on: studio.mirrored ? "no" : "yes"});
$("choose-camera").onclick = async () => {
  $("camera-dialog").showModal();
  $("camera-list").replaceChildren();
  setText($("camera-text"), "looking for cameras");
  const cameras = await getJson("studio/cameras") || [];
  setText($("camera-text"), cameras.length > 1 ? "" : "There is no other camera on the device.");
  $("camera-list").replaceChildren(...cameras.map(({source, text}) => {
    const button = make("button", "", text);
    button.setAttribute("aria-pressed", source === studio.camera_source);
    button.onclick = async () => {
      setText($("camera-text"), "opening it");
      if (await act("studio/camera", {source}) === undefined) { setText($("camera-text"), ""); return; }
      $("camera-dialog").close();
      say(`the camera is ${text} now`);
    };
    return button;
  }));
};
$("close-camera").onclick = () => $("camera-dialog").close();

// One label

let changed = null;  // the label in the dialog

function openLabel(label) {
  changed = label;
  const index = studio.labels.findIndex(one => one.name === label);
  setText($("label-title"), `Change ${label}`);
  $("new-name").value = label;
  $("earlier").disabled = index === 0;
  $("later").disabled = index === studio.labels.length - 1;
  setText($("remove"), `Remove ${label} with its ${plural(studio.labels[index].count, "image")}`);
  $("label-dialog").showModal();
}

$("rename").onsubmit = async event => {
  event.preventDefault();
  const name = $("new-name").value;
  if (name !== changed && await act("studio/rename", {label: changed, name}) === undefined) return;
  $("label-dialog").close();
  if (name !== changed) sayUndoable(`renamed ${changed} to ${name}`);
};
$("remove").onclick = async () => {
  const count = await act("studio/remove", {label: changed});
  if (count === undefined) return;
  $("label-dialog").close();
  sayUndoable(`removed ${changed} and its ${plural(count, "image")}`);
};

async function moveLabel(before) {
  if (await act("studio/order", {label: changed, before}) !== undefined) $("label-dialog").close();
}
const indexOfChanged = () => studio.labels.findIndex(label => label.name === changed);
$("earlier").onclick = () => moveLabel(studio.labels[indexOfChanged() - 1].name);
$("later").onclick = () => moveLabel((studio.labels[indexOfChanged() + 2] || {name: null}).name);
$("close-label").onclick = () => $("label-dialog").close();
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", hush);
addEventListener("blur", () => endRecording());
