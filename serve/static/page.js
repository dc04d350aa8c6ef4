// The page: what is drawn or opened goes to the reader, what it answers is shown in words and bars.

import { elements } from "./card.js";
import { describe } from "./classes.js";
import { Explanation } from "./explain.js";
import { Pad } from "./pad.js";
import { Reader, dataUri } from "./reader.js";
import { a, percent } from "./words.js";

const ROWS = 10; // bars at most: of more classes, the likeliest
const LONGEST = 1600; // pixels along a side of a picture that is sent
const HEAVY = 2 ** 20; // bytes from which a picture is made smaller
const READ = /^image\/(png|jpeg|webp|gif|bmp|tiff)$/; // other kinds are converted, if the browser can
const at = (id) => document.getElementById(id);

const reader = new Reader({
  onanswer: show,
  onfault: fail,
  onlive: () => light(),
  onslow: slow,
  onbusy: (busy) => at("answer").setAttribute("aria-busy", busy),
});
const pad = new Pad(at("canvas"), changed);
const explanation = new Explanation(reader);
let kind, bars, buttons; // of the model that is asked
let limited = false; // whether requests are counted, so that only finished lines are read
let answer = null; // the one that is shown
let shown = null; // the picture that it is of
let model = null;
let silent = false; // whether the service owes an answer for long

// What is drawn

function changed(finished) {
  at("undo").disabled = !pad.past.length;
  at("clear").disabled = pad.empty;
  at("board").classList.toggle("used", !pad.empty);
  const holds = pad.picture ? `the picture ${pad.picture.name}` : pad.empty ? "empty" : lines(pad.strokes.length);
  at("canvas").setAttribute("aria-label", `Drawing area, ${holds}`);
  at("name-only").textContent = pad.picture && !pad.picture.bitmap ? pad.picture.name : "";
  if (pad.empty) return blank();
  if (!finished && (limited || pad.begun)) return;
  reader.read(() => pad.blob(), !finished);
}

function lines(count) {
  return count === 1 ? "one line" : `${count} lines`;
}

async function open(file) {
  if (!file) return;
  const name = file.name || "from the clipboard";
  try {
    const bitmap = await createImageBitmap(file);
    const [blob, width] = await lighter(file, bitmap);
    pad.show({ blob, bitmap, name, width });
  } catch {
    pad.show({ blob: file, bitmap: null, name }); // the service says what is wrong with it
  }
}

/** A photo as large as reading needs, quicker and within what the service takes; and its width. */
async function lighter(file, bitmap) {
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  if (READ.test(file.type) && file.size < HEAVY && scale > 0.5) return [file, bitmap.width];
  const sheet = document.createElement("canvas");
  sheet.width = Math.max(1, Math.round(bitmap.width * scale));
  sheet.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = sheet.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, sheet.width, sheet.height);
  return [await new Promise((resolve) => sheet.toBlob(resolve, "image/webp", 0.92)), sheet.width];
}

// What is answered

function blank() {
  reader.forget();
  at("how").textContent = "";
  if (kind.drawn) put("empty", "?", "Nothing drawn yet", "The answer appears here while you draw.");
  else put("empty", "?", "Nothing shown yet", "The answer appears here.");
  clearTimeout(put.timer);
  at("spoken").textContent = "Cleared";
  fill(null);
}

/** The answer takes its time; that of an earlier picture does not stand meanwhile. */
function slow(long) {
  if (long) put("fault", "!", "No answer yet", "The service takes very long, or hangs. The page still waits.");
  else put("empty", "…", "Reading…", "The answer takes longer than it should.");
  fill(null);
  if (long) heard(false);
}

function heard(answers) {
  silent = !answers;
  light();
}

function show(given, milliseconds, blob) {
  shown = blob;
  if (!kind.whole) pad.mark(blob, given.box);
  heard(true);
  const { prediction, confidence, probabilities, uncertain, not_digit } = given;
  const [, place] = likeliest(probabilities);
  const second = kind.labels[place];
  const note = not_digit
    ? kind.oddNote(a(prediction))
    : uncertain
      ? `It could also be ${a(second)}. A clearer one may help.`
      : probabilities[place] < 0.01
        ? kind.alone
        : `Next likely is ${a(second)}, with ${percent(probabilities[place])}.`;
  const sure = not_digit ? kind.odd : uncertain ? `Unsure, ${percent(confidence)}` : `${percent(confidence)} sure`;
  put(uncertain || not_digit ? "unsure" : "sure", prediction, sure, note);
  fill(given);
  at("how").textContent = `Answered by version ${given.model_version} in ${Math.round(milliseconds)} ms.`;
  if (model && model.version !== given.model_version) introduce();
}

/** The places of the classes, the likeliest first. */
function likeliest(probabilities) {
  return [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
}

const TROUBLE = {
  0: ["No connection", "The service does not answer. Trying again…"],
  400: ["Not a picture", "This file cannot be read as a picture. PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF can."],
  401: ["A key is needed", "Enter the API key of this service above."],
  413: ["Too large", "This picture is larger than the service takes."],
  415: ["Another kind of file", "PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF can be read."],
  422: ["No digit found", "Try a larger or darker one, with some room around it."],
  429: ["A moment, please", "These were too many requests."],
  503: ["Not ready", "The service has no model yet, or is busy."],
};

function fail(fault) {
  heard(fault.status);
  const wrong = fault.status === 401 && reader.key;
  const [title, words] = wrong ? WRONG_KEY : (TROUBLE[fault.status] ?? ["Something went wrong", fault.message]);
  const again = fault.wait && fault.status ? ` Trying again in ${fault.wait} s.` : "";
  put(fault.status === 422 ? "hint" : "fault", fault.status === 422 ? "?" : "!", title, words + again);
  at("how").textContent = "";
  fill(null);
  if (fault.status === 401) askForKey();
}

const WRONG_KEY = ["This key is not right", "Enter another API key above."];

function put(state, label, sure, note) {
  at("answer").dataset.state = state;
  at("digit").textContent = label;
  at("digit").classList.toggle("word", String(label).length > 2);
  at("sure").textContent = sure;
  at("note").textContent = note;
  clearTimeout(put.timer); // read out once it has settled
  const spoken = state === "sure" || state === "unsure" ? `${label}, ${sure}. ${note}` : `${sure}. ${note}`;
  put.timer = setTimeout(() => (at("spoken").textContent = spoken), 700);
}

function fill(given) {
  answer = given;
  const places = kind.labels.length > ROWS ? given && likeliest(given.probabilities) : [...kind.labels.keys()];
  for (const [rank, { row, name, track, value }] of bars.entries()) {
    const place = places?.[rank];
    const share = given?.probabilities[place] ?? 0;
    name.textContent = name.title = kind.labels[place] ?? "";
    row.classList.toggle("best", Boolean(given) && kind.labels[place] === given.prediction);
    track.style.setProperty("--share", share);
    value.textContent = given ? percent(share) : "";
  }
  for (const [place, label] of kind.labels.entries()) {
    buttons[place].disabled = !given || label === given.prediction;
    buttons[place].removeAttribute("aria-pressed");
  }
  for (const [id, likely] of [["confirm", !given?.not_digit], ["none", given?.not_digit]]) {
    at(id).disabled = !given;
    at(id).removeAttribute("aria-pressed");
    at(id).classList.toggle("primary", Boolean(likely));
  }
  at("confirm-text").textContent = given ? `Yes, it is ${a(given.prediction)}` : "Yes";
  at("thanks").textContent = "";
  see(given?.image);
  explanation.about(given && shown);
}

async function see(uri) {
  const canvas = at("seen");
  const label = uri ? `What the model saw: ${kind.seen}` : "What the model saw: nothing yet";
  canvas.setAttribute("aria-label", label);
  const pen = canvas.getContext("2d");
  if (!uri) return pen.clearRect(0, 0, canvas.width, canvas.height);
  const image = new Image();
  image.src = uri;
  await image.decode();
  if (answer?.image === uri) pen.drawImage(image, 0, 0);
}

// What is said back

async function tell(label) {
  const told = answer;
  if (!told) return;
  const [right, body] = [label === told.prediction, { request_id: told.request_id, label }];
  let thanks;
  try {
    await reader.feedback(body).catch(async (fault) => {
      if (fault.status !== 404) throw fault; // else it is forgotten there: send it along
      await reader.feedback({ ...body, image: await dataUri(shown) });
    });
    thanks = right ? "Thank you." : `Thank you: kept as ${label === null ? kind.none : a(label)}.`;
  } catch (fault) {
    thanks = `Not kept: ${fault.message}.`;
  }
  if (told !== answer) return;
  at("confirm").setAttribute("aria-pressed", right);
  at("none").setAttribute("aria-pressed", label === null);
  for (const [place, each] of kind.labels.entries()) buttons[place].setAttribute("aria-pressed", !right && each === label);
  at("thanks").textContent = thanks;
}

// Who answers

async function introduce() {
  try {
    const info = await reader.info();
    const name = chosen(info.model_names);
    model = info.models.find((each) => each.model === name) ?? null;
    limited = Boolean(info.limits.rate_limit);
    reader.largest = info.limits.max_image_bytes;
    reader.keyed = info.limits.api_key_required;
    if (reader.keyed && !reader.key) askForKey();
    adapt(describe(model));
    reader.choose(name === info.model_name ? "" : name);
    reader.connect();
    at("model-name").textContent = model ? `${name}, version ${model.version}` : "No model is loaded yet";
    at("model-detail").textContent = model ? accuracy(model) : "";
    at("about").hidden = !model?.card;
    at("card").replaceChildren(...elements(model?.card ?? ""));
  } catch {
    model = null;
    at("model-name").textContent = "The service does not answer";
  }
  light();
  if (!model) setTimeout(introduce, 3000);
}

/** The model of the address of the page, or the default; the chooser offers all. */
function chosen(names) {
  const wanted = new URLSearchParams(location.search).get("model");
  const name = names.includes(wanted) ? wanted : names[0];
  at("models").replaceChildren(...names.map((each) => new Option(each, each, false, each === name)));
  at("chooser").hidden = names.length < 2;
  return name;
}

function accuracy({ metrics }) {
  return metrics.test_accuracy ? `${(metrics.test_accuracy * 100).toFixed(2)}\u202f% of test images right` : "";
}

const LIGHT = {
  none: "Not connected",
  live: "Connected",
  single: "Connected, by single requests",
};

function light() {
  const state = !model || silent ? "none" : reader.live ? "live" : "single";
  at("light").dataset.on = state;
  at("connection").textContent = LIGHT[state];
}

function askForKey() {
  at("key").hidden = false;
  at("key-value").focus();
}

// What is built and heard

/** Makes the page one for the model's classes; what is drawn stays if they are the same. */
function adapt(found) {
  if (JSON.stringify(found) === JSON.stringify(kind)) return;
  const first = !kind;
  kind = explanation.kind = found;
  document.title = at("title").textContent = kind.title;
  at("intro").textContent = kind.intro;
  at("here").textContent = kind.drawn ? "Draw here" : "Drop a picture here";
  for (const one of document.querySelectorAll(".one")) one.textContent = kind.one;
  for (const one of document.querySelectorAll(".of-digits")) one.hidden = !kind.digits;
  for (const one of document.querySelectorAll(".drawing")) one.hidden = !kind.drawn;
  at("board").classList.toggle("still", !kind.drawn);
  at("examples").hidden = !kind.digits;
  at("photograph").hidden = kind.drawn;
  at("undo").hidden = !kind.drawn;
  at("step-size").textContent = kind.size.join("×");
  [at("seen").width, at("seen").height] = kind.size;
  const words = kind.labels.some((label) => String(label).length > 2);
  for (const list of [at("bars"), at("digits")]) list.classList.toggle("words", words);
  [bars, buttons] = [buildBars(), buildLabels()];
  if (first) fill(null);
  else pad.reset(kind.drawn, kind.digits);
}

function buildBars() {
  at("bars").replaceChildren();
  return kind.labels.slice(0, ROWS).map(() => {
    const [row, name, track, value] = ["li", "span", "span", "span"].map((kind) => document.createElement(kind));
    name.className = "name";
    track.className = "track";
    value.className = "value";
    row.append(name, track, value);
    at("bars").append(row);
    return { row, name, track, value };
  });
}

function buildLabels() {
  at("digits").replaceChildren();
  return kind.labels.map((label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.disabled = true;
    button.setAttribute("aria-label", `No, it is ${a(label)}`);
    button.addEventListener("click", () => tell(label));
    at("digits").append(button);
    return button;
  });
}

at("undo").addEventListener("click", () => pad.undo());
at("clear").addEventListener("click", () => pad.clear());
at("confirm").addEventListener("click", () => tell(answer.prediction));
at("none").addEventListener("click", () => tell(null));
for (const [button, input] of [["open", "file"], ["photograph", "camera"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", ({ target }) => {
    open(target.files[0]);
    target.value = ""; // the same file may be opened again
  });
}
at("models").addEventListener("change", ({ target }) => {
  history.replaceState(null, "", `?model=${encodeURIComponent(target.value)}`);
  pad.reset(kind.drawn, kind.digits);
  introduce();
});
for (const button of at("examples").querySelectorAll("button")) {
  const { src, alt } = button.firstElementChild;
  button.addEventListener("click", async () => {
    const blob = await (await fetch(src)).blob();
    open(new File([blob], alt, { type: blob.type }));
  });
}
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  reader.key = at("key-value").value;
  at("key").hidden = true;
  changed(true);
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select")) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key.toLowerCase() === "z" && !event.shiftKey) pad.undo();
  else if (event.key === "Escape") pad.clear();
  else return;
  event.preventDefault();
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  open(file);
});

at("paste").hidden = !navigator.clipboard?.read;
at("paste").addEventListener("click", async () => {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((kind) => kind.startsWith("image/"));
      if (type) return open(await item.getType(type));
    }
    at("note").textContent = "There is no picture in the clipboard.";
  } catch {
    at("note").textContent = "The browser does not let this page see the clipboard: use Ctrl V.";
  }
});

let inside = 0; // elements that are dragged over: leaving a child is no leaving
const dragging = (count) => document.body.classList.toggle("dropping", (inside = count) > 0);
document.addEventListener("dragenter", () => dragging(inside + 1));
document.addEventListener("dragleave", () => dragging(inside - 1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(0);
  open(event.dataTransfer.files[0]);
});

if (/Mac|iP/.test(navigator.platform)) {
  for (const key of document.querySelectorAll(".command")) key.textContent = "⌘";
}
adapt(describe(null));
introduce();
