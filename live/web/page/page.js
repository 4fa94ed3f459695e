// The live page: its connection, the camera's image, the answer, and corrections. studio.js adds what teaches labels.

import {$, act, drawLine, hush, make, makeKey, say, setText} from "./dom.js";
import {isLearning} from "./models.js";
import {endRecording, pressStudioKey, releaseStudioKey, showStudio, studio} from "./studio.js";

const MINUTE = 60000, SILENCE = 3500, CHECK_INTERVAL = 500, RETRY = 1000;  // ms; a heartbeat comes each second
const pageId = Array.from(crypto.getRandomValues(new Uint8Array(8)), byte => byte.toString(16).padStart(2, "0")).join("");
const sureness = [];  // [time, confidence]
let socket = null, lastMessage = 0, wasOffline = false, shownLabels = "[]", nextImage = null, isDrawing = false;

// The connection. One WebSocket: a browser has six other connections to one address, for all its tabs together.

function connect() {
  if (socket || document.hidden) return;
  const url = new URL(`live?page=${pageId}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const own = socket = new WebSocket(url);
  let opened = false;
  lastMessage = Date.now();
  own.binaryType = "blob";
  own.onopen = () => { opened = true; };
  own.onmessage = event => {
    if (own !== socket) return;
    lastMessage = Date.now();
    if (typeof event.data === "string") show(JSON.parse(event.data));
    else { nextImage = event.data; drawImages(); }
  };
  own.onclose = () => {
    if (own !== socket) return;
    socket = null;
    if (document.hidden) return;
    goOffline();
    if (!opened) explainRefusal();
    setTimeout(connect, RETRY);
  };
}

function disconnect() {
  const own = socket;
  socket = null;
  if (own) own.close();
}

function goOffline() {
  endRecording("no connection to the device: the recording has ended");
  setState("no connection to the device, trying again", true);
  $("work").inert = wasOffline = true;
}

// A device that was started again has another token.
async function explainRefusal() {
  try {
    const reply = await fetch("metrics");
    if (reply.status === 403) setState("this address is no longer valid: open the one that the device has printed", true);
  } catch (error) { /* no connection, as it says already */ }
}

function goOnline() {
  $("work").inert = wasOffline = false;
  hush();
}

function setState(text, bad) {
  setText($("state"), text);
  $("state").className = bad ? "bad" : "";
  $("stage").classList.toggle("stale", bad);
}

setInterval(() => {
  if (socket && Date.now() - lastMessage > SILENCE) { disconnect(); goOffline(); connect(); }
}, CHECK_INTERVAL);
addEventListener("visibilitychange", () => {  // a page that nobody sees takes nothing from the device
  if (document.hidden) { endRecording(); disconnect(); } else connect();
});
addEventListener("pagehide", disconnect);  // the device ends the recording of a page that is gone
addEventListener("pageshow", connect);

// The image

async function drawImages() {
  if (isDrawing) return;
  isDrawing = true;
  while (nextImage) {
    const blob = nextImage, canvas = $("picture");
    nextImage = null;
    try {
      const image = await createImageBitmap(blob);
      if (canvas.width !== image.width) canvas.width = image.width;
      if (canvas.height !== image.height) canvas.height = image.height;
      canvas.getContext("2d").drawImage(image, 0, 0);
      image.close();
    } catch (error) { /* cut off by the end of a connection */ }
  }
  isDrawing = false;
}

// The answer

function show(state) {
  if (wasOffline) goOnline();
  const lost = state.camera !== "ok";
  setState(lost ? "camera lost, trying again" : "live", lost);
  if (state.studio) showStudio(state.studio, pageId);
  $("corrections").hidden = !state.corrections;
  $("dropped").textContent = state.dropped;
  const order = studio ? studio.labels.map(label => label.name) : [];  // as the cards are
  const labels = [...state.labels].sort((one, other) => order.indexOf(one) - order.indexOf(other));
  if (JSON.stringify(labels) !== shownLabels) rebuild(labels);
  const colors = studio ? studio.colors : {};
  for (const bar of $("bars").children) bar.style.setProperty("--color", colors[bar.firstChild.title] || "");
  if (state.label === undefined) return;
  if (studio && !studio.ready) {
    setText($("label"), "\u2013");
    setText($("confidence"), isLearning(studio) ? "learning the images" : "nothing learned yet");
    $("bars").hidden = true;
    return;
  }
  $("bars").hidden = false;
  const percent = value => `${Math.round(100 * value)} %`, isUnknown = !state.labels.includes(state.label);
  setText($("label"), state.label);
  const likeliest = labels.reduce((best, label) => state.probabilities[label] > state.probabilities[best] ? label : best, labels[0]);
  setText($("confidence"), isUnknown ? `not sure enough: perhaps ${likeliest}, ${percent(state.confidence)}`
    : `${percent(state.confidence)} sure`);
  for (const bar of $("bars").children) {
    const label = bar.firstChild.title, value = state.probabilities[label] || 0;
    bar.classList.toggle("best", label === state.label);
    bar.children[1].firstChild.style.transform = `scaleX(${value})`;
    bar.children[2].textContent = percent(value);
  }
  $("latency_ms").textContent = `${state.latency_ms.toFixed(1)} ms`;
  $("age_ms").textContent = `${state.age_ms.toFixed(0)} ms`;
  $("fps").textContent = state.fps.toFixed(0);
  $("provider").textContent = state.provider;
  if (state.since_ms < 1000) sureness.push([lastMessage, state.confidence]);
  while (sureness.length && sureness[0][0] < lastMessage - MINUTE) sureness.shift();
  drawLine($("spark"), sureness.map(([time, value], index) =>
    // A gap where there was no prediction.
    [1 - (lastMessage - time) / MINUTE, value, index > 0 && time - sureness[index - 1][0] > 2000]));
}

function rebuild(labels) {
  shownLabels = JSON.stringify(labels);
  $("bars").replaceChildren(...labels.map(label => {
    const bar = make("div", "bar"), track = make("div", "track");
    track.append(make("div"));
    bar.append(make("span", "", label), track, make("span", "", ""));
    bar.firstChild.title = label;
    return bar;
  }));
  $("buttons").replaceChildren(...labels.map((label, index) => {
    const button = make("button", "", label);
    if (index < 9) button.append(makeKey(index + 1));
    button.onclick = () => correct(label);
    return button;
  }));
}

async function correct(label) {
  const saved = await act("labels", {label});
  if (saved) say(`saved as ${saved.label} (${saved.count} so far)`);
}

$("toast-close").onclick = hush;
$("squeeze").onclick = () => {
  const squeezed = $("picture").classList.toggle("squeezed");
  $("squeeze").setAttribute("aria-pressed", squeezed);
};
addEventListener("keydown", event => {
  const isTyping = ["INPUT", "SELECT"].includes(event.target.tagName) || document.querySelector("dialog[open]");
  if (event.repeat || event.altKey || isTyping || wasOffline) return;
  if (studio) { pressStudioKey(event); return; }
  const labels = JSON.parse(shownLabels);
  if ($("corrections").hidden || event.ctrlKey || event.metaKey || !(event.key >= "1" && event.key <= "9")) return;
  if (event.key <= labels.length) correct(labels[event.key - 1]);
  else say(`there is no label ${event.key}: there are ${labels.length}`);
});
addEventListener("keyup", event => { if (studio) releaseStudioKey(event); });
connect();
