// What every part of the page uses: elements, messages, and requests to the device.

export const $ = id => document.getElementById(id);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;  // as text, so that HTML in a label does nothing
  return element;
}

// Set an element's text, unless it is that already: a screen reader would say it again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function makeKey(key) {
  const element = make("kbd", "", key);
  element.setAttribute("aria-hidden", "true");  // the name of its button would end with it
  return element;
}

export function makeOption(value, text = value) {
  const element = make("option", "", text);
  element.value = value;
  return element;
}

const SHOWN = 8000, SHOWN_ERROR = 20000;  // ms that a message stays
let expiry = null;

// Show a message at the bottom of what is in sight, also over an open dialog.
export function say(text, {bad = false, undo = null} = {}) {
  clearTimeout(expiry);
  (document.querySelector("dialog[open]") || document.body).append($("toast"));  // all else is out of reach then
  $("toast").hidden = false;
  $("toast").className = bad ? "bad" : "";
  $("done").textContent = text;
  $("toast-undo").hidden = !undo;
  $("toast-undo").onclick = undo;
  expiry = setTimeout(hush, bad ? SHOWN_ERROR : SHOWN);
}

export function hush() {
  clearTimeout(expiry);
  $("toast").hidden = true;
  document.body.append($("toast"));  // not inside a dialog that closes
}

const TIMEOUT = 60000;  // ms; removing a label with many images takes a while
let last = Promise.resolve();

// Send an action to the device, after the ones before it. Returns its result, or undefined if it went wrong, which is
// said.
export function act(path, values = {}) {
  const result = last.then(() => post(path, values));
  last = result;
  return result;
}

async function post(path, values) {
  const limit = new AbortController(), timer = setTimeout(() => limit.abort(), TIMEOUT);
  try {
    const reply = await fetch(path, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(values), signal: limit.signal,
    });
    const isJson = (reply.headers.get("Content-Type") || "").includes("json");
    const body = isJson ? await reply.json() : {error: await reply.text()};
    if (reply.ok) return "result" in body ? body.result : body;
    say(body.error, {bad: true});
  } catch (error) {
    say("no connection to the device", {bad: true});
  } finally {
    clearTimeout(timer);
  }
  return undefined;
}

export async function getJson(path) {
  try {
    const reply = await fetch(path);
    if (reply.ok) return await reply.json();
    say((await reply.json()).error, {bad: true});
  } catch (error) {
    say("no connection to the device", {bad: true});
  }
  return undefined;
}

// Draw a line from [x, y, begins after a gap] in 0 to 1, on a canvas with lines at 0, a half and 1.
export function drawLine(canvas, points) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), colors = getComputedStyle(document.documentElement);
  const y = value => 2 + (1 - value) * (height - 4);
  pen.scale(ratio, ratio);
  pen.strokeStyle = colors.getPropertyValue("--line");
  for (const value of [0, .5, 1]) {
    pen.beginPath(); pen.moveTo(0, y(value)); pen.lineTo(width, y(value)); pen.stroke();
  }
  pen.strokeStyle = colors.getPropertyValue("--accent");
  pen.lineWidth = 1.5;
  pen.beginPath();
  points.forEach(([x, value, isGap], index) => pen[index && !isGap ? "lineTo" : "moveTo"](width * x, y(value)));
  pen.stroke();
}
