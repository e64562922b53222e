// The playground: signs by /playground/sign as any back end does, and uploads from here as any page does.
// All texts from files and answers go through textContent, and the page's Content-Security-Policy forbids the rest.
import { snippets } from "/playground/snippets.js";

const $ = (id) => document.getElementById(id);
const MB = 1 << 20;
const RIVALS = 20;
const STALL_SECONDS = 60; // without progress or an answer, after an upload has begun
const STRANGE = "The answer is not from uponce. A server in between may have sent it.";
const SAMPLES = [
  ["dusk.jpg", "image/jpeg", "Photo"],
  ["morning.jpg", "image/jpeg", "Photo"],
  ["moon.gif", "image/gif", "GIF"],
  ["sunrise.mp4", "video/mp4", "Video"],
];

/** What is chosen, and the newest signature: {number, url, fields, expiresAt, state, item, attempts}. */
let file = null;
let signature = null;
let signatures = 0;
let busy = false;
let clockSkew = 0; // seconds that the server's clock is ahead

// --- small helpers

function make(tag, props = {}, ...children) {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
}

const say = (text) => ($("said").textContent = text);
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const firstSentence = (text) => text.split(/(?<=\.) (?=[A-Z])/)[0];
const short = (hex) => `${hex.slice(0, 6)}…${hex.slice(-4)}`;
/** Seconds in words, in the largest unit that is not below 2. */
function span(seconds) {
  const [unit, length] = [["days", 86400], ["hours", 3600], ["minutes", 60]].find(([, each]) => seconds >= 2 * each) ?? ["seconds", 1];
  return `${Math.round(seconds / length)} ${unit}`;
}
const now = () => Date.now() / 1000 + clockSkew;

function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The file as a picture: `full` shows it with controls. */
function picture(blob, url, { full = false, name = "" } = {}) {
  const type = blob.type ?? "";
  const none = make("span", { textContent: full ? "No preview" : "" });
  const onerror = ({ target }) => target.replaceWith(none); // not what its name says, or a format unknown to browsers
  if (type.startsWith("image/")) return make("img", { src: url, alt: full ? name : "", onerror });
  if (!type.startsWith("video/")) return none;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const props = { src: url, muted: true, loop: true, playsInline: true, autoplay: full && !still, controls: full, onerror };
  return make("video", { ...props, ariaLabel: full ? name : null });
}

/** As fetch, with a message for people if there is no answer. The widget takes a TypeError for a broken line. */
async function get(path, options) {
  try {
    return await fetch(`/playground/${path}`, options);
  } catch {
    throw new TypeError("The server cannot be reached. Check that it runs, and try again.");
  }
}

async function ask(action, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await get(action, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => undefined);
  if (response.ok && answer) return answer;
  const { code = "strange", message = STRANGE } = answer?.error ?? {};
  throw Object.assign(new Error(message), { code, status: response.status }); // as the widget wants it
}

// --- 1: the file

function choose(blob, name) {
  if (file) URL.revokeObjectURL(file.preview);
  file = { blob, name, preview: URL.createObjectURL(blob), thumb: URL.createObjectURL(blob) };
  $("preview").replaceChildren(picture(blob, file.preview, { full: true, name: `Preview of ${name}` }));
  $("file-name").textContent = name;
  $("file-size").textContent = size(blob.size);
  showCode();
}

function chooseOwn(files) {
  const [own] = files;
  if (!own) return;
  for (const radio of document.querySelectorAll("#samples input")) radio.checked = false;
  choose(own, own.name);
}

async function sample(index) {
  const [name, type] = SAMPLES[index];
  const response = await get(`samples/${name}`);
  if (!response.ok) throw new Error(`The sample ${name} cannot be loaded: status ${response.status}.`);
  return [new Blob([await response.arrayBuffer()], { type }), name];
}

/** Return the chosen file. Until the user chooses one, this is the first sample, perhaps loaded again. */
async function chosen() {
  if (file) return file;
  const first = await sample(0);
  if (!file) choose(...first);
  return file;
}

function showSamples() {
  SAMPLES.forEach(([name, type, kind], index) => {
    const radio = make("input", { type: "radio", name: "sample", checked: index === 0 });
    const load = async () => {
      const loaded = await sample(index);
      if (radio.checked) choose(...loaded); // else another choice was faster
    };
    radio.addEventListener("change", () => guarded(load));
    const thumb = make("img", { src: `/playground/samples/${name.replace(".mp4", ".jpg")}`, alt: "" });
    $("samples").append(make("label", {}, radio, thumb, make("span", { textContent: kind, title: name })));
  });
}

/** Another file than the chosen one, as a second upload with the same signature would bring. */
async function otherFile() {
  const index = (await chosen()).name === SAMPLES[1][0] ? 0 : 1;
  const [blob, name] = await sample(index);
  return { blob, name, thumb: URL.createObjectURL(blob) };
}

// --- 2: the signature

async function sign(params = {}) {
  const nonce = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const asked = { nonce, ...params };
  const answer = await ask("sign", { params: asked });
  clockSkew = answer.now - Date.now() / 1000;
  signatures += 1;
  const lifetime = answer.expires_at - Number(answer.fields.timestamp);
  signature = { number: signatures, url: answer.url, fields: answer.fields, expiresAt: answer.expires_at, lifetime };
  signature.state = "unused";
  signature.kept = answer.keep_seconds;
  addToLog(signature);
  showSignature();
  showCode();
  return signature;
}

function setState(which, state) {
  which.state = state;
  which.pill.textContent = state;
  which.pill.dataset.state = state;
  if (which === signature) showSignature();
}

/** The ledger's word, after an attempt whose outcome the page cannot know. */
async function lookUp(which) {
  const { status } = await ask("status", which.fields);
  setState(which, status);
  return status;
}

const NOTES = {
  nonce: "makes every signature a different one",
  max_bytes: "no larger file",
  timestamp: "its time counts from here",
  valid_for: "seconds that it lives",
  signature: "made with the secret, which stays on the server",
  api_key: "says whose secret",
};

function showSignature() {
  const rows = Object.entries(signature.fields).flatMap(([name, value]) => [
    make("dt", { textContent: name }),
    make("dd", {}, make("code", { textContent: value }), make("small", { textContent: NOTES[name] ?? "" })),
  ]);
  $("fields").replaceChildren(...rows);
  tick();
}

const STATES = {
  unused: ["Unused", "time to use it"],
  used: ["Used", "It has done its work."],
  revoked: ["Revoked", "Its owner took it back."],
  expired: ["Expired", "Nothing was uploaded in time."],
};

function tick() {
  if (!signature) return;
  const left = Math.max(0, signature.expiresAt - now());
  if (signature.state === "unused" && left === 0) return setState(signature, "expired");
  const part = signature.state === "unused" ? left / signature.lifetime : signature.state === "expired" ? 0 : 1;
  $("clock").dataset.state = signature.state;
  $("hand").style.strokeDashoffset = String(100 - 100 * part);
  const [title, text] = STATES[signature.state];
  $("state").textContent = title;
  const whole = Math.ceil(left);
  const clock = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  $("left").textContent = signature.state === "unused" ? `${clock} left` : text;
  $("upload").textContent = signature.state === "unused" ? "Upload" : "Upload with the same signature";
}

// --- 3: the upload

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a proxy's page
  }
}

/** Post the fields and then the file. `cut` breaks the connection amid the file, `lose` throws the answer away. */
function post(which, { blob, name }, { key, cut, lose, onProgress } = {}) {
  return new Promise((resolve) => {
    const form = new FormData();
    for (const [field, value] of Object.entries(which.fields)) form.append(field, value);
    form.append("file", blob, name);
    const xhr = new XMLHttpRequest();
    const begun = performance.now();
    let stall;
    const done = (outcome) => {
      clearTimeout(stall);
      resolve({ ...outcome, ms: Math.round(performance.now() - begun) });
    };
    xhr.open("POST", which.url);
    if (key) xhr.setRequestHeader("Idempotency-Key", key);
    xhr.upload.onprogress = ({ loaded, total }) => {
      clearTimeout(stall);
      stall = setTimeout(() => xhr.abort(), STALL_SECONDS * 1000);
      onProgress?.(loaded / total);
      if (!cut || loaded === 0 || loaded === total) return;
      done({ cut: true, sent: loaded });
      xhr.abort();
    };
    xhr.onreadystatechange = () => {
      if (!lose || xhr.readyState !== XMLHttpRequest.HEADERS_RECEIVED) return;
      done({ lost: true });
      xhr.abort();
    };
    xhr.onload = () => {
      const replayed = xhr.getResponseHeader("Idempotent-Replayed") === "true";
      const answer = parsed(xhr.responseText);
      const said = xhr.status === 200 ? answer?.public_id : answer?.error?.code;
      done(said ? { status: xhr.status, replayed, answer } : { strange: xhr.status });
    };
    xhr.onerror = xhr.onabort = () => done({ broken: true });
    xhr.send(form);
  });
}

/** The outcome in words: whether it is good news, a title, and the sentence below it. */
function describe({ status, answer, replayed, cut, sent, lost, broken, strange }) {
  if (cut) return { title: `Connection cut after ${size(sent)}`, text: "The server got a part of the file." };
  if (lost) return { title: "The reply was lost", text: "The page does not know whether the file was stored." };
  if (broken) return { mood: "bad", title: "No answer", text: "The server cannot be reached." };
  if (strange) return { mood: "bad", title: `Status ${strange}`, text: STRANGE };
  if (status !== 200) return { mood: "bad", title: `Refused: ${answer.error.code}`, text: answer.error.message };
  return { mood: "good", title: replayed ? "The same answer again" : "Stored", text: answer.public_id };
}

async function send(which, what, options = {}) {
  const outcome = await post(which, what, options);
  if (!options.silent) logAttempt(which, what, outcome);
  if (outcome.status === 200) setState(which, "used");
  return outcome;
}

async function upload(which, given) {
  const what = given ?? (await chosen());
  $("result").replaceChildren(make("p", { className: "empty", textContent: "Uploading…" }));
  const outcome = await send(which, what, { onProgress: showProgress });
  showProgress(outcome.status === 200 ? 1 : 0);
  const { title, text } = describe(outcome);
  if (outcome.status === 200) showStored(which, outcome.answer, what.blob.type);
  else showRefused(which, what, title, text);
  say(`${title}. ${text}`);
  return outcome;
}

function showProgress(part) {
  $("bar").value = part;
  $("percent").textContent = part ? `${Math.round(part * 100)} %` : "";
}

const answerBox = (mood, title, text) =>
  make("div", { className: `answer ${mood}` }, make("strong", { textContent: title }), text);

/** What was refused, in grey, above what the same signature stored before. */
function showRefused(which, { blob, name, thumb }, title, text) {
  const words = make("div", {}, make("strong", { textContent: title }), text.split(" Equal parameters")[0]);
  const file = make("span", { className: "not-stored", title: name }, picture(blob, thumb));
  $("result").replaceChildren(make("div", { className: "answer bad refused" }, file, words), ...(which.stored ?? []));
}

function showStored(which, answer, type) {
  const full = { full: true, name: `The stored file ${answer.public_id}` };
  const media = picture({ type }, answer.secure_url, full);
  if (answer.width) Object.assign(media, { width: answer.width, height: answer.height }); // room before it is loaded
  const facts = [
    answer.format?.toUpperCase() ?? answer.resource_type,
    answer.width && `${answer.width} × ${answer.height}`,
    answer.pages > 1 && `${answer.pages} frames`,
    answer.duration && `${Number(answer.duration).toFixed(1)} s`,
    size(answer.bytes),
  ].filter(Boolean);
  const link = make("a", { href: answer.secure_url, textContent: answer.secure_url, target: "_blank", rel: "noopener" });
  const spans = facts.map((text) => make("span", { textContent: text }));
  const caption = make("figcaption", {}, make("strong", { textContent: "✓ Stored" }), ...spans);
  const gone = make("p", { className: "facts empty", textContent: `The server deletes this file after ${span(which.kept)} at the latest.` });
  which.stored = [make("figure", { className: "stored" }, media, caption), make("p", { className: "facts" }, link), gone];
  $("result").replaceChildren(...which.stored);
}

// --- what happened

function addToLog(which) {
  if (which.number === 1) $("log").replaceChildren();
  which.pill = make("span", { className: "pill", textContent: which.state });
  which.pill.dataset.state = which.state;
  which.attempts = make("ol", { className: "attempts" });
  const name = make("code", { textContent: short(which.fields.signature) });
  const title = make("h3", {}, `Signature ${which.number}`, name, which.pill);
  $("log").prepend(make("li", {}, title, which.attempts));
  while ($("log").children.length > 12) $("log").lastChild.remove();
}

function logLine(which, { mood = "", thumb, title, text }) {
  const words = make("div", {}, make("strong", { className: mood, textContent: title }), make("p", {}, ...[text].flat()));
  const time = make("time", { textContent: new Date().toLocaleTimeString([], { hourCycle: "h23" }) });
  which.attempts.append(make("li", { className: mood }, thumb ?? make("span"), words, time));
}

function logAttempt(which, { blob, name, thumb }, outcome) {
  const said = describe(outcome);
  const shown = thumb ? picture(blob, thumb) : undefined;
  const text = `${firstSentence(said.text)} (${name}, ${size(blob.size)}, ${outcome.ms} ms)`;
  logLine(which, { ...said, thumb: shown, text });
}

// --- try to break it: each one returns whether it went as promised (no word if that cannot be seen), and what was seen

const refusedAs = (outcome, code) => outcome.status === 400 && outcome.answer.error.code === code;

function verdict(outcome, code) {
  const { title, text } = describe(outcome);
  return { kept: refusedAs(outcome, code), title, text: firstSentence(text) };
}

/** No verdict, if the server refused the file itself: a signature that is unused shows neither ✓ nor ✗. */
async function untried(which, { status }) {
  if (status === 200 || (await lookUp(which)) !== "unused") return undefined;
  const text = "This file was refused, so the signature is unused. Choose another file, or try again.";
  return { title: "Nothing to try", text };
}

const TRIES = [
  {
    id: "again",
    title: "Use the same signature again",
    promise: "With another file, while its time still runs.",
    async run() {
      const isUsed = signature?.state === "used" && signature.expiresAt > now() + 10; // time for a slow upload
      const first = isUsed ? { status: 200 } : await upload(await sign());
      return (await untried(signature, first)) ?? verdict(await upload(signature, await otherFile()), "signature_used");
    },
  },
  {
    id: "twenty",
    title: "Twenty at once",
    promise: "Twenty uploads race with one signature.",
    async run(dots) {
      const what = await chosen();
      const which = await sign();
      const race = Array.from({ length: RIVALS }, async (_, index) => {
        const outcome = await send(which, what, { silent: true });
        dots[index].className = outcome.status === 200 ? "good" : "bad";
        return outcome;
      });
      const outcomes = await Promise.all(race);
      const winners = outcomes.filter(({ status }) => status === 200);
      const won = winners.length;
      for (const { answer } of winners) showStored(which, answer, what.blob.type);
      const [used, inUse] = ["signature_used", "signature_in_use"].map((code) => outcomes.filter((one) => refusedAs(one, code)).length);
      const lost = used + inUse;
      const nothing = won + used === 0 && lost < RIVALS && (await untried(which, outcomes[0]));
      if (nothing) return nothing;
      const title = `${won} stored, ${lost} refused`;
      const kept = won === 1 && lost === RIVALS - 1;
      const row = make("span", { className: "dots" }, ...dots.map((dot) => dot.cloneNode()));
      logLine(which, { mood: kept ? "good" : "bad", title, text: [`${RIVALS} uploads of ${what.name} at once`, row] });
      const refusal = outcomes.map(describe).find(({ mood }) => mood === "bad");
      return { kept, title, text: firstSentence(refusal?.text ?? "") };
    },
  },
  {
    id: "expire",
    title: "Let it expire",
    promise: "A signature for three seconds, used too late.",
    async run() {
      const which = await sign({ valid_for: "3" });
      await wait(which.expiresAt - now() + 0.4);
      return verdict(await upload(which), "stale_request");
    },
  },
  {
    id: "cut",
    title: "Cut the connection",
    promise: "A broken upload costs nothing. The retry works.",
    async run() {
      const which = await sign();
      const noise = crypto.getRandomValues(new Uint8Array(65536));
      const large = { blob: new Blob(Array(64 * 16).fill(noise)), name: "large file" };
      const torn = await send(which, large, { cut: true, onProgress: showProgress });
      if (!torn.cut) return { kept: false, title: "Too fast to cut", text: "The upload ended first. Try it again." };
      const status = await lookUp(which);
      logLine(which, { title: `The server says: ${status}`, text: "Nothing was stored, nothing was spent." });
      const retry = await upload(which);
      const nothing = status === "unused" && (await untried(which, retry));
      if (nothing) return nothing;
      const kept = status === "unused" && retry.status === 200;
      return { kept, title: kept ? "Not spent. The retry was stored" : describe(retry).title, text: describe(torn).title };
    },
  },
  {
    id: "lose",
    title: "Lose the reply",
    promise: "Ask again with the same Idempotency-Key.",
    async run() {
      const what = await chosen(); // the user may choose another file before the last try
      const which = await sign();
      const key = which.fields.nonce;
      await send(which, what, { key, lose: true });
      const again = await send(which, what, { key });
      if (again.status === 200) showStored(which, again.answer, what.blob.type);
      const nothing = await untried(which, again);
      if (nothing) return nothing;
      const without = await send(which, what);
      const kept = again.status === 200 && again.replayed && refusedAs(without, "signature_used");
      const text = "Stored once, answered twice. Without the key, the server refuses the repeat.";
      return { kept, title: kept ? "The same answer again" : describe(again).title, text: kept ? text : describe(again).text };
    },
  },
  {
    id: "revoke",
    title: "Revoke it",
    promise: "The owner takes an unused signature back.",
    async run() {
      const which = await sign();
      const { status } = await ask("revoke", which.fields);
      setState(which, status);
      logLine(which, { title: "Revoked by its owner", text: "Before it was used" });
      return verdict(await upload(which), "signature_revoked");
    },
  },
];

function showTries() {
  for (const trial of TRIES) {
    const button = make("button", { type: "button", textContent: "Try it" });
    button.setAttribute("aria-label", `Try it: ${trial.title}`);
    const seen = make("div", { className: "verdict", hidden: true });
    const heading = make("h3", { textContent: trial.title });
    const item = make("li", { className: "try", id: `try-${trial.id}` }, heading, make("p", { textContent: trial.promise }), button, seen);
    button.addEventListener("click", () => act(() => attempt(trial, seen)));
    $("tries").append(item);
  }
}

const MOODS = { true: ["good", "✓"], false: ["bad", "✗"], unknown: ["unknown", "–"] };

async function attempt(trial, seen) {
  const dots = trial.id === "twenty" ? Array.from({ length: RIVALS }, () => make("i")) : [];
  const row = make("div", { className: "dots", hidden: !dots.length }, ...dots);
  seen.hidden = false;
  seen.replaceChildren(row, make("p", { className: "empty", textContent: "Trying…" }));
  const failed = ({ message }) => ({ title: "No result", text: message });
  const { kept = "unknown", title, text } = await trial.run(dots).catch(failed);
  const [mood, mark] = MOODS[kept];
  const box = answerBox(mood, `${mark} ${title}`, text);
  seen.replaceChildren(box, row);
  seen.dataset.kept = String(kept);
  say(`${trial.title}: ${title}. ${text}`);
}

/** What fails outright is shown at the top. */
async function guarded(work) {
  $("trouble").hidden = true;
  try {
    await work();
  } catch (error) {
    $("trouble").textContent = error.message;
    $("trouble").hidden = false;
  }
}

/** One action at a time. */
async function act(work) {
  if (busy) return;
  busy = true;
  const buttons = document.querySelectorAll(".stage button, .try button");
  for (const button of buttons) button.setAttribute("aria-disabled", "true");
  await guarded(work);
  for (const button of buttons) button.removeAttribute("aria-disabled");
  busy = false;
}

// --- the code

let tab = 0;
let code = "";

function showTabs() {
  const tabs = snippets.map(({ name }, index) => {
    const button = make("button", { type: "button", id: `tab-${index}`, role: "tab", textContent: name });
    button.setAttribute("aria-controls", "panel");
    button.addEventListener("click", () => openTab(index));
    return button;
  });
  $("tabs").append(...tabs);
  $("tabs").addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    openTab((tab + step + tabs.length) % tabs.length);
    tabs[tab].focus();
  });
  openTab(0);
}

function openTab(index) {
  tab = index;
  [...$("tabs").children].forEach((button, at) => {
    button.setAttribute("aria-selected", String(at === index));
    button.tabIndex = at === index ? 0 : -1;
  });
  $("panel").setAttribute("aria-labelledby", `tab-${index}`);
  $("about").textContent = snippets[index].about;
  const isWidget = snippets[index].name === "Widget";
  $("live").hidden = !isWidget;
  if (isWidget) guarded(showWidget);
  showCode();
}

function showCode() {
  if (!signature || !file) return;
  code = snippets[tab].code({ ...signature, file: file.name, origin: new URL(signature.url).origin });
  $("code").replaceChildren(...coloured(code));
}

/** Texts, words of the language and comments, each in its colour. */
function* coloured(text) {
  const parts = /("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|`[^`]*`)|((?:^|\s)(?:\/\/|#\s).*$|<!--.*?-->)|\b(const|let|await|async|for|of|if|new|return|throw|import|from|with|as|in|open|print|curl)\b/gm;
  let at = 0;
  for (const found of text.matchAll(parts)) {
    yield text.slice(at, found.index);
    const className = found[1] ? "s" : found[2] ? "n" : "w";
    yield make("span", { className, textContent: found[0] });
    at = found.index + found[0].length;
  }
  yield text.slice(at);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(code);
  } catch {
    getSelection().selectAllChildren($("code"));
    return ($("copy").textContent = "Press Ctrl+C");
  }
  $("copy").textContent = "Copied";
  await wait(1.5);
  $("copy").textContent = "Copy";
}

async function showWidget() {
  if ($("live").firstChild) return;
  await import("/widget.js").catch(() => {
    throw new Error("The widget cannot be loaded. Check that the server runs, and reload this page.");
  });
  if ($("live").firstChild) return; // of the first click of a double click
  const widget = make("uponce-upload", {});
  widget.setAttribute("cloud", "playground");
  widget.setAttribute("multiple", "");
  const signed = new WeakMap(); // by file: two files may have the same name
  widget.signer = async ({ nonce }, file) => {
    const which = await sign({ nonce });
    signed.set(file, which);
    return { url: which.url, fields: which.fields };
  };
  const note = (mood, title, text) => (event) => {
    const which = signed.get(event.detail.file);
    if (!which) return;
    if (mood === "good") setState(which, "used");
    logLine(which, { mood, title, text: text(event.detail) });
  };
  widget.addEventListener("uploaded", note("good", "Stored by the widget", ({ answer }) => answer.public_id));
  widget.addEventListener("refused", note("bad", "Refused by the server", ({ error }) => error.message));
  $("live").append(widget);
}

// --- start

function start() {
  showSamples();
  showTries();
  showTabs();
  $("sign").addEventListener("click", () => act(() => sign()));
  $("upload").addEventListener("click", () => act(async () => upload(signature ?? (await sign()))));
  $("copy").addEventListener("click", copy);
  $("picked").addEventListener("change", ({ target }) => {
    chooseOwn(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  addEventListener("paste", (event) => {
    // The listener of a widget is on the document, so it comes first.
    if (!event.defaultPrevented) chooseOwn(event.clipboardData?.files ?? []);
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      if (event.target.closest?.("uponce-upload")) return; // the widget takes its own files
      event.preventDefault();
      $("drop").classList.toggle("over", type === "dragover");
      if (type === "drop") chooseOwn(event.dataTransfer.files);
    });
  }
  setInterval(tick, 100);
  act(async () => {
    await chosen();
    await sign();
  });
}

// After the first frame: people see the page before its work begins.
requestAnimationFrame(() => setTimeout(start));
