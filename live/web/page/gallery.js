// All images of a label: choose some, look at one, move them to another label, take them out, or put them back.

import {$, act, getJson, make, makeOption, plural, setText} from "./dom.js";
import {sayUndoable, studio} from "./studio.js";

let label = null;  // whose images are shown, or null for those that were taken out
let lastClicked = -1;

export const imageUrl = (label, name, more = "") =>
  `studio/image?label=${encodeURIComponent(label)}&name=${encodeURIComponent(name)}${more}`;

export function openGallery(ofLabel) {
  label = ofLabel;
  open();
  const others = studio.labels.map(one => one.name).filter(name => name !== label);
  $("move-to").replaceChildren(...others.map(name => makeOption(name)));
}

export function openRejected() {
  label = null;
  open();
}

function open() {
  $("pictures").replaceChildren();
  setText($("gallery-title"), label === null ? "Images that were taken out" : `Images of ${label}`);
  $("move-row").hidden = $("take-out").hidden = label === null;
  $("put-back").hidden = label !== null;
  $("gallery").showModal();
  fill();
}

async function fill() {
  const shown = label;
  const images = label === null ? await getJson("studio/rejected")
    : (await getJson(`studio/images?label=${encodeURIComponent(label)}`) || []).map(name => ({label, name}));
  if (shown !== label) return;
  const more = label === null ? "&rejected=1" : "";
  lastClicked = -1;
  $("large").hidden = true;
  $("pictures").replaceChildren(...(images || []).map((one, index) => {
    const button = make("button"), image = make("img");
    button.dataset.label = one.label;
    button.dataset.name = one.name;
    button.title = label === null ? `${one.label}: ${one.name}` : one.name;
    button.setAttribute("aria-pressed", "false");
    button.onclick = event => click(index, event.shiftKey);
    image.loading = "lazy";
    image.src = imageUrl(one.label, one.name, more);
    image.alt = `image ${index + 1}`;
    button.append(image);
    return button;
  }));
  count();
}

const all = () => [...$("pictures").children];
const isChosen = button => button.getAttribute("aria-pressed") === "true";
const choose = (button, chosen) => button.setAttribute("aria-pressed", chosen);

// Choose an image or no longer; with Shift all from the one that was clicked before.
function click(index, isRange) {
  const buttons = all(), chosen = !isChosen(buttons[index]);
  const first = isRange && lastClicked >= 0 ? lastClicked : index;
  for (let one = Math.min(first, index); one <= Math.max(first, index); one++) choose(buttons[one], isRange || chosen);
  lastClicked = index;
  const {label: ofLabel, name} = buttons[index].dataset;
  $("large").src = imageUrl(ofLabel, name, `&size=large${label === null ? "&rejected=1" : ""}`);
  $("large").hidden = false;
  count();
}

function count() {
  const buttons = all(), chosen = buttons.filter(isChosen).length;
  setText($("chosen"), buttons.length ? `${chosen} of ${plural(buttons.length, "image")} chosen` : "no images");
  for (const id of ["move", "take-out", "put-back"]) $(id).disabled = !chosen;
  if (label !== null && !$("move-to").children.length) $("move").disabled = true;
}

function chooseAll(chosen) {
  for (const button of all()) choose(button, chosen);
  count();
}

async function moveChosen(to) {
  const names = all().filter(isChosen).map(button => button.dataset.name);
  const text = await act("studio/move", {label, names, to});
  if (text !== undefined) sayUndoable(text);
  fill();
}

async function putBack() {
  const byLabel = new Map();
  for (const {dataset} of all().filter(isChosen)) byLabel.set(dataset.label, [...byLabel.get(dataset.label) || [], dataset.name]);
  for (const [ofLabel, names] of byLabel) {
    const text = await act("studio/restore", {label: ofLabel, names});
    if (text !== undefined) sayUndoable(text);
  }
  fill();
}

$("move").onclick = () => moveChosen($("move-to").value);
$("take-out").onclick = () => moveChosen(null);
$("put-back").onclick = putBack;
$("choose-all").onclick = () => chooseAll(true);
$("choose-none").onclick = () => chooseAll(false);
$("close-gallery").onclick = () => $("gallery").close();
$("toast-undo").addEventListener("click", () => { if ($("gallery").open) setTimeout(fill, 300); });
