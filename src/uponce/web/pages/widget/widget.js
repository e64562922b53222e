/*! uponce upload widget. MIT. <uponce-upload sign="/sign" cloud="media" multiple></uponce-upload> */

const HOME = new URL(import.meta.url).origin;
const TUS = { "Tus-Resumable": "1.0.0" };
const DAY = 86_400_000; // how long uponce keeps an unfinished upload
const LIVE = ["signing", "uploading", "retrying"];
const UNFINISHED = ["queued", ...LIVE, "paused"];
const FINAL = ["file_too_large", "empty_file", "format_not_allowed", "invalid_media", "media_too_large", "too_many_files"];

/** All texts. The property `messages` overrides them; a key may also be any error code of uponce or of your server. */
const MESSAGES = {
  choose: "Choose a file",
  chooseMany: "Choose files",
  drop: "or drop it here",
  dropMany: "or drop them here",
  camera: "Use the camera",
  files: "Files",
  queued: "Waiting",
  signing: "Preparing",
  uploading: "{loaded} of {size}",
  pace: "{speed}/s · {left} left",
  checking: "Checking the file",
  paused: "Paused at {percent}",
  retrying: "Connection lost. Trying again in {left}",
  found: "Choose this file again to continue",
  done: "{size} · Uploaded",
  pause: "Pause {name}",
  resume: "Continue {name}",
  retry: "Try {name} again",
  again: "Choose {name} again",
  remove: "Remove {name}",
  required: "Choose a file.",
  wait: "Wait until the upload has finished.",
  refused: "This file was refused.",
  sign_failed: "This site did not allow the upload.",
  unreachable: "No connection. Try again when you are online.",
  unreadable: "This file was moved or changed. Remove it and choose it again.",
  too_many_files: "Only {max} files are allowed.",
  file_too_large: "This file is too large.",
  empty_file: "This file is empty.",
  format_not_allowed: "Files of this type are not accepted.",
  invalid_media: "This file is damaged, or not of the type that its name says.",
  media_too_large: "This picture or video is too large.",
  signature_used: "This permission to upload was already used.",
  signature_revoked: "This permission to upload was withdrawn.",
  stale_request: "This permission to upload has expired.",
};

const STYLE = `
:host { display: block; container-type: inline-size; font: 1rem/1.4 var(--uponce-font, system-ui, sans-serif);
  --accent: var(--uponce-accent, light-dark(#0b5cad, #7cb8ff)); --on-accent: var(--uponce-on-accent, light-dark(#fff, #06203d));
  --text: var(--uponce-text, light-dark(#1b1f24, #e8eaed)); --muted: var(--uponce-muted, light-dark(#57606c, #a5aeba));
  --surface: var(--uponce-surface, light-dark(#fff, #171a1f)); --line: var(--uponce-line, light-dark(#d8dde4, #363c46));
  --good: var(--uponce-good, light-dark(#18794e, #4cc38a)); --bad: var(--uponce-bad, light-dark(#b42318, #ff8b80));
  --radius: var(--uponce-radius, .75rem); color: var(--text) }
:host([hidden]), [hidden] { display: none !important }
* { box-sizing: border-box }
button { font: inherit; color: inherit; border: 0; cursor: pointer; touch-action: manipulation }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
svg { width: 1.25rem; height: 1.25rem; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
.drop { display: flex; flex-wrap: wrap; align-items: center; justify-content: center; gap: .5rem .75rem; padding: 1.75rem 1rem;
  text-align: center; background: var(--surface); border: 2px dashed color-mix(in srgb, var(--muted) 70%, var(--surface));
  border-radius: var(--radius); cursor: pointer; transition: background .15s, border-color .15s }
.drop:hover { border-color: var(--accent) }
.drop.over { border-style: solid; border-color: var(--accent); background: color-mix(in srgb, var(--accent) 10%, var(--surface)) }
.drop > svg { flex: 0 0 100%; height: 1.75rem; color: var(--accent); transition: transform .15s }
.drop.over > svg { transform: translateY(-3px) }
.drop button { display: inline-flex; align-items: center; gap: .5rem; min-height: 2.75rem; padding: .5rem 1.125rem; font-weight: 600;
  color: var(--on-accent); background: var(--accent); border-radius: calc(var(--radius) * .75) }
.drop .camera { color: var(--accent); background: none; box-shadow: inset 0 0 0 1.5px var(--accent) }
.drop span, .status { color: var(--muted) }
@media not (pointer: coarse) { .camera { display: none !important } }
:host(:disabled) .drop { opacity: .55; pointer-events: none }
ul { display: grid; gap: .5rem; margin: .75rem 0 0; padding: 0; list-style: none }
ul:empty { display: none }
li { display: grid; grid-template-columns: 3rem minmax(0, 1fr) auto; align-items: center; gap: .75rem; padding: .625rem;
  background: var(--surface); border: 1px solid var(--line); border-radius: var(--radius); animation: in .2s }
@keyframes in { from { opacity: 0; transform: translateY(4px) } }
.thumb { position: relative; display: grid; place-items: center; width: 3rem; height: 3rem; color: var(--muted);
  font-size: .6875rem; font-weight: 700; letter-spacing: .03em; background: color-mix(in srgb, var(--muted) 14%, var(--surface));
  border-radius: calc(var(--radius) * .66) }
.thumb > :is(canvas, img, video) { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; border-radius: inherit }
.thumb > svg { position: absolute; inset-inline-end: -.375rem; bottom: -.375rem; width: 1.25rem; height: 1.25rem; padding: .2rem;
  color: var(--surface); stroke-width: 4; background: var(--good); border-radius: 50%; box-shadow: 0 0 0 2px var(--surface) }
.name { overflow: hidden; font-weight: 600; line-height: 1.3; text-overflow: ellipsis; white-space: nowrap }
.status { min-height: 1.4em; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.bar { height: .25rem; margin-top: .25rem; overflow: hidden; background: var(--line); border-radius: 1rem; transition: opacity .3s }
.fill { height: 100%; background: var(--accent); transform: scaleX(0); transform-origin: left; transition: transform .2s linear }
:host(:dir(rtl)) .fill { transform-origin: right }
.busy .fill { animation: busy 1.2s infinite alternate ease-in-out }
@keyframes busy { to { opacity: .35 } }
[data-state=paused] .fill, [data-state=queued] .fill { background: var(--muted) }
[data-state=retrying] .fill { background: color-mix(in srgb, var(--bad) 60%, var(--line)) }
:is([data-state=done], [data-state=refused]) .bar { opacity: 0 }
[data-state=refused] { border-color: color-mix(in srgb, var(--bad) 50%, var(--line)) }
[data-state=refused] .status { color: var(--bad) }
.actions { display: flex }
.actions button { display: grid; place-items: center; width: 2.25rem; height: 2.25rem; color: var(--muted); background: none; border-radius: 50% }
.actions button:hover { color: var(--text); background: color-mix(in srgb, var(--muted) 16%, transparent) }
@media (pointer: coarse) { .actions button { width: 2.75rem; height: 2.75rem } }
.live { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
@container (max-width: 26rem) { .drop { padding: 1.25rem .75rem } .drop span { flex: 0 0 100% } li { gap: .5rem .625rem; padding: .5rem } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important } }
@media (forced-colors: active) { .fill { background: Highlight } }
`;

const ICONS = {
  upload: "M12 16V4m0 0L7 9m5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  pause: "M9 6v12M15 6v12",
  resume: "M8 5v14l11-7z",
  retry: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  remove: "M6 6l12 12M18 6 6 18",
  done: "M5 13l4 4L19 7",
};

// --- small helpers

/** Build an element. Texts become text nodes, so no file name is ever read as HTML. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function icon(name) {
  const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  path.setAttribute("d", ICONS[name]);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  return svg;
}

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const promised = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal.removeEventListener("abort", end), resolve()), ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

function isAccepted(accept, { name, type }) {
  const rules = (accept ?? "").toLowerCase().split(",").map((rule) => rule.trim()).filter(Boolean);
  const fits = (rule) =>
    rule[0] === "." ? name.toLowerCase().endsWith(rule) : rule.endsWith("/*") ? type.startsWith(rule.slice(0, -1)) : type === rule;
  return !rules.length || rules.some(fits);
}

/** All files of a drop, also those inside folders. `handle` lets a file be read again after a reload. */
async function dropped(transfer) {
  // The transfer is empty as soon as this event is over: ask for everything first.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const asked = items.map((item) => [item.getAsFile(), item.webkitGetAsEntry?.(), item.getAsFileSystemHandle?.().catch(() => null)]);
  const found = [];
  for (const [file, entry, handle] of asked) {
    if (entry?.isDirectory) for await (const inside of filesOf(entry)) found.push([inside]);
    else if (file) found.push([file, await handle]);
  }
  return found;
}

async function* filesOf(entry) {
  if (entry.isFile) return yield await new Promise((resolve, reject) => entry.file(resolve, reject));
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const each of entries) yield* filesOf(each);
  }
}

// --- what survives a reload: IndexedDB has the signed fields, and the file or a handle to it where the browser allows

const store = {
  async open() {
    const request = indexedDB.open("uponce", 1);
    request.onupgradeneeded = () => ["uploads", "files"].forEach((name) => request.result.createObjectStore(name));
    return promised(request);
  },
  /** Do one thing, or nothing: in a private window there may be no storage, and uploads work without it. */
  async try(name, method, ...values) {
    try {
      const database = await (this.opened ??= this.open());
      return await promised(database.transaction(name, method.startsWith("get") ? "readonly" : "readwrite").objectStore(name)[method](...values));
    } catch {
      return undefined;
    }
  },
};

// --- the wire

class Refusal extends Error {
  /** `again`: the same request may succeed later. `seconds`: when. A status of 0 is a broken line. */
  constructor(code, message = "", status = 0, retryAfter = null) {
    super(message);
    this.code = code;
    this.status = status;
    this.again = retryAfter !== null || [0, 408, 409, 423, 429].includes(status) || status >= 500 || code === "chunk_superseded";
    this.seconds = Number(retryAfter) || (Date.parse(retryAfter) - Date.now()) / 1000 || 0;
  }
}

const local = (code, message) => new Refusal(code, message, 400);

/** One request. Return { json, header }, or throw a Refusal. When nothing moves for `stall` ms, the line counts as broken. */
function send(method, url, { headers = {}, body = null, signal, stall = 30_000, moved = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    const header = (name) => xhr.getResponseHeader(name);
    let timer;
    const alive = (ms) => (clearTimeout(timer), (timer = setTimeout(abort, ms)));
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (body) xhr.upload.onprogress = ({ loaded }) => (alive(stall), moved(loaded));
    xhr.upload.onload = () => alive(stall * 4); // the server now checks and stores the file
    xhr.onloadend = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      if (signal?.aborted) return reject(signal.reason);
      let json;
      try {
        json = JSON.parse(xhr.responseText);
      } catch {} // HEAD, 204, or a proxy's page
      if (xhr.status >= 200 && xhr.status < 300) return resolve({ json, header });
      if (!xhr.status) return reject(new Refusal("unreachable"));
      const { code, message = header("X-Cld-Error") } = json?.error ?? {};
      reject(new Refusal(code, message ?? "", xhr.status, header("Retry-After")));
    };
    signal?.addEventListener("abort", abort);
    alive(stall);
    xhr.send(body);
  });
}

// --- one file

class Upload {
  constructor(host, { file = null, handle = null, ...known }) {
    const { name = "file", size = 0, type = "", lastModified = 0 } = file ?? {};
    Object.assign(this, { id: random(), name, size, type, lastModified, state: "queued", loaded: 0, offset: 0, renewed: 0 }, known);
    Object.assign(this, { host, file, handle });
  }

  /** Do all that is left to do, with as many tries as it takes. Every try continues where the last one ended. */
  async run() {
    const { signal } = (this.control = new AbortController());
    const { delay, tries } = this.host.timing;
    for (let failed = 0; ; ) {
      const before = this.offset;
      try {
        this.error = null;
        this.answer = await (this.place || this.size > this.host.partSize ? this.resumable(signal) : this.plain(signal));
        return this.end("done");
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Refusal)) return this.refuse(local("sign_failed", error.message));
        if (await this.renew(error)) continue;
        failed = this.offset > before ? 1 : failed + 1;
        if (!error.again || failed > tries) return this.refuse(error);
        if (!error.status && !(await this.isReadable())) return this.refuse(local("unreadable"));
        this.error = error;
        const wait = Math.max(error.seconds * 1000, Math.min(delay * 2 ** (failed - 1), 30_000) * (0.75 + Math.random() / 2));
        this.show("retrying", { left: Math.max(1, Math.round(wait / 1000)) });
        await pause(wait, signal).catch(() => {});
        if (signal.aborted) return;
      }
    }
  }

  /** Whether to begin again with a new signature: this one expired, or its unfinished upload is gone. */
  async renew({ code, status }) {
    const gone = this.place && (status === 404 || status === 410);
    if (!(gone || code === "stale_request") || ++this.renewed > 3) return false;
    this.forgetGrant();
    return true;
  }

  forgetGrant() {
    this.grant = this.place = null;
    this.offset = this.loaded = 0;
  }

  async isReadable() {
    return this.file.slice(0, 1).arrayBuffer().then(() => true, () => false);
  }

  /** One signature for each file. It is kept until its outcome is known: asking for another one could store the file twice. */
  async signed(signal) {
    if (!this.grant) {
      this.show("signing");
      const key = random();
      const answer = await this.host.ask({ ...this.host.params, nonce: key }, this, signal);
      if (!answer?.fields) throw local("sign_failed");
      this.grant = { url: new URL(answer.url ?? this.host.target, location.href).href, fields: answer.fields, key };
      await this.save();
    }
    this.show("uploading");
    return this.grant;
  }

  /** A small file: one POST. If its reply is lost, the same key asks for the same answer. */
  async plain(signal) {
    const { url, fields, key } = await this.signed(signal);
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    body.append("file", this.file, this.name);
    const { json } = await this.send("POST", url, { headers: { "Idempotency-Key": key }, body, signal });
    if (!json) throw new Refusal("unreachable"); // not uponce's answer: some proxy's
    return json;
  }

  /** A large file: an upload by tus in parts. Its address says how much has arrived, and after the end which asset it is. */
  async resumable(signal) {
    if (this.place) this.arrived(await this.send("HEAD", this.place, { headers: TUS, signal }));
    else await this.begin(signal);
    this.show("uploading");
    while (this.offset < this.size) {
      const end = Math.min(this.offset + this.host.partSize, this.size);
      const headers = { ...TUS, "Upload-Offset": this.offset, "Content-Type": "application/offset+octet-stream" };
      if (end === this.size) headers.Prefer = "return=representation";
      const reply = await this.send("PATCH", this.place, { headers, body: this.file.slice(this.offset, end), signal });
      this.arrived(reply);
      if (reply.json?.public_id) return reply.json;
    }
    return (await this.send("GET", this.place, { signal })).json;
  }

  async begin(signal) {
    const { url, fields } = await this.signed(signal);
    const [, base, cloud, type = "auto"] = /^(.*)\/v1_1\/([^/]+)\/(?:(\w+)\/)?upload/.exec(url) ?? [];
    const metadata = { ...fields, resource_type: type, filename: this.name };
    const encoded = Object.entries(metadata).map(([name, value]) => `${name} ${base64(String(value))}`);
    const headers = { ...TUS, "Upload-Length": this.size, "Upload-Metadata": encoded.join() };
    try {
      this.place = (await this.send("POST", `${base}/tus/${cloud}/`, { headers, signal })).header("Location");
    } catch (error) {
      if (!error.status) this.grant = null; // the address may be lost with the reply; nothing was sent yet
      throw error;
    }
    await this.save();
  }

  send(method, url, options) {
    const begin = this.offset;
    const moved = (loaded) => this.moved(Math.min(begin + loaded, this.size));
    return send(method, url, { ...options, moved, stall: this.host.timing.stall });
  }

  arrived({ header }) {
    this.offset = this.loaded = Number(header("Upload-Offset"));
  }

  moved(loaded) {
    const now = performance.now();
    const { at, was } = (this.mark ??= { at: now, was: loaded });
    if (now - at > 400) {
      const speed = ((loaded - was) / (now - at)) * 1000;
      this.speed = this.speed > 0 ? this.speed * 0.7 + speed * 0.3 : speed;
      this.mark = { at: now, was: loaded };
    }
    this.loaded = loaded;
    this.show("uploading");
    this.host.tell("progress", this);
  }

  stop() {
    this.control?.abort();
    this.mark = this.speed = null;
  }

  pause() {
    if (!UNFINISHED.includes(this.state)) return;
    this.stop();
    this.show("paused");
    this.host.next();
  }

  async resume() {
    if (!this.file && !(await this.reopen())) return this.host.pick();
    this.show("queued");
    this.host.next();
  }

  /** After a reload: read the file through its handle, for which the browser may ask the user. */
  async reopen() {
    try {
      if ((await this.handle.requestPermission()) !== "granted") return false;
      const file = await this.handle.getFile();
      return this.isSame(file) && Boolean((this.file = file));
    } catch {
      return false;
    }
  }

  isSame({ name, size, lastModified }) {
    return name === this.name && size === this.size && lastModified === this.lastModified;
  }

  refuse(error) {
    this.error = error;
    if (!error.again) this.forgetGrant();
    this.end("refused");
  }

  end(state) {
    this.stop();
    if (state === "done" || !this.error.again) this.forget();
    this.show(state);
    this.host.ended(this);
  }

  remove() {
    this.stop();
    if (this.place && this.state !== "done") send("DELETE", this.place, { headers: TUS }).catch(() => {});
    this.forget();
    this.host.drop(this);
  }

  // What a reload needs to go on.

  async save(withFile = false) {
    if (!this.host.keeps) return;
    const { id, name, size, type, lastModified, grant, place, host } = this;
    await store.try("uploads", "put", { id, name, size, type, lastModified, grant, place, owner: host.owner, at: Date.now() }, id);
    const kept = this.handle ?? (this.size <= host.timing.keep && this.file);
    if (withFile && kept) await store.try("files", "put", kept, id);
  }

  forget() {
    this.release?.();
    if (this.host.keeps) for (const name of ["uploads", "files"]) store.try(name, "delete", this.id);
  }

  /** Of all pages and tabs, one has this upload. The browser ends the lock with the page, also after a crash. */
  hold() {
    const signal = AbortSignal.timeout(2000); // the page before a reload may not be gone yet
    return new Promise((resolve) => {
      const held = () => (resolve(true), new Promise((release) => (this.release = release)));
      navigator.locks.request(`uponce-${this.id}`, { signal }, held).catch(() => resolve(false));
    });
  }

  // What the user sees.

  show(state, values = {}) {
    this.state = state;
    this.host.draw(this, values);
  }
}

// --- the element

export class UponceUpload extends HTMLElement {
  static formAssociated = true;
  static observedAttributes = ["multiple", "accept", "capture", "required", "name", "value-as", "disabled"];

  #internals = this.attachInternals();
  #uploads = [];
  #views = new Map();
  #leave = (event) => event.preventDefault(); // the browser asks whether to leave
  #paste = (event) => this.#pasted(event);

  /** Texts by key, in the language of the page. */
  messages = {};
  /** Your own way to get a signature: async (params, file, signal) => ({ url, fields }). */
  signer = null;
  /** Milliseconds: pause before the first repeat, and how long a line may stall. How many tries; which bytes to keep for a reload. */
  timing = { delay: 1000, tries: 8, stall: 30_000, keep: 100_000_000 };

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    const sheet = new CSSStyleSheet(); // a strict Content-Security-Policy allows it
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const picked = ({ target }) => (this.add(target.files), (target.value = ""));
    this.input = h("input", { type: "file", hidden: "", onchange: picked });
    this.shot = h("input", { type: "file", hidden: "", onchange: picked });
    this.button = h("button", { type: "button", part: "button" });
    this.camera = h("button", { type: "button", part: "camera", class: "camera", onclick: (e) => (e.stopPropagation(), this.shot.click()) });
    this.hint = h("span", { part: "hint" });
    const arrow = icon("upload");
    arrow.setAttribute("part", "icon");
    this.zone = h("div", { part: "drop", class: "drop", onclick: () => this.input.click() }, arrow, this.button, this.camera, this.hint);
    this.list = h("ul", { part: "list", role: "list" });
    this.live = h("div", { class: "live", role: "status" });
    root.append(this.input, this.shot, this.zone, this.list, this.live);
    for (const type of ["dragenter", "dragover", "dragleave", "drop"]) this.addEventListener(type, (event) => this.#drag(event));
  }

  connectedCallback() {
    for (const name of ["messages", "signer", "timing", "headers"]) this.#upgrade(name);
    this.attributeChangedCallback();
    document.addEventListener("paste", this.#paste);
    if (!this.restored) this.restored = this.#restore();
  }

  /** Removed from the page for good, not moved: stop. What is unfinished goes on when the element is there again. */
  disconnectedCallback() {
    document.removeEventListener("paste", this.#paste);
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.restored = null;
      for (const upload of this.#uploads.filter(({ state }) => UNFINISHED.includes(state))) {
        upload.stop();
        upload.release?.();
        this.drop(upload);
      }
    });
  }

  /** A property that was set before this script had loaded hides the one of the class. */
  #upgrade(name) {
    if (!Object.hasOwn(this, name) || name in { messages: 1, signer: 1, timing: 1 }) return;
    const value = this[name];
    delete this[name];
    this[name] = value;
  }

  attributeChangedCallback() {
    const many = this.hasAttribute("multiple");
    for (const input of [this.input, this.shot]) {
      input.multiple = many && input === this.input;
      input.accept = this.getAttribute("accept") ?? "";
    }
    const capture = this.getAttribute("capture");
    this.shot.setAttribute("capture", capture || "environment");
    this.camera.hidden = capture === null;
    this.input.disabled = this.shot.disabled = this.button.disabled = this.camera.disabled = this.matches(":disabled");
    this.button.textContent = this.text(many ? "chooseMany" : "choose");
    this.hint.textContent = this.text(many ? "dropMany" : "drop");
    this.camera.replaceChildren(icon("camera"), this.text("camera"));
    this.list.setAttribute("aria-label", this.text("files"));
    this.#sync();
  }

  // --- settings

  get partSize() {
    return Number(this.getAttribute("part-size")) || 16_000_000;
  }

  get params() {
    const wanted = ["public_id", "folder", "tags"].filter((name) => this.hasAttribute(name));
    return Object.fromEntries(wanted.map((name) => [name, this.getAttribute(name)]));
  }

  get headers() {
    return JSON.parse(this.getAttribute("headers") ?? "{}");
  }

  set headers(headers) {
    this.setAttribute("headers", JSON.stringify(headers));
  }

  get target() {
    return `${this.getAttribute("server") ?? HOME}/v1_1/${this.getAttribute("cloud")}/auto/upload`;
  }

  /** Uploads of a page find their element by this name after a reload. */
  get owner() {
    return `${location.pathname}#${this.id || this.getAttribute("name") || this.getAttribute("sign") || ""}`;
  }

  get keeps() {
    return Boolean(navigator.locks && globalThis.indexedDB) && !this.hasAttribute("forget");
  }

  async ask(params, { file, name, size, type }, signal) {
    if (this.signer) return this.signer(params, file, signal);
    const headers = { "Content-Type": "application/json", Accept: "application/json", ...this.headers };
    const body = JSON.stringify({ params, file: { name, size, type } });
    try {
      return (await send("POST", this.getAttribute("sign"), { headers, body, signal, stall: this.timing.stall })).json;
    } catch (error) {
      if (error instanceof Refusal) error.code ??= "sign_failed";
      throw error;
    }
  }

  // --- what a page may call

  get uploads() {
    return this.#uploads.map(({ id, name, size, state, loaded, answer, error, file }) => ({ id, name, size, state, loaded, answer, error, file }));
  }

  get answers() {
    return this.#uploads.filter(({ state }) => state === "done").map(({ answer }) => answer);
  }

  get value() {
    const values = this.answers.map((answer) => this.#valueOf(answer));
    return this.hasAttribute("multiple") ? values : (values[0] ?? "");
  }

  get form() {
    return this.#internals.form;
  }

  get validity() {
    return this.#internals.validity;
  }

  get validationMessage() {
    return this.#internals.validationMessage;
  }

  checkValidity() {
    return this.#internals.checkValidity();
  }

  reportValidity() {
    return this.#internals.reportValidity();
  }

  add(files) {
    this.#take([...files].map((file) => [file]));
  }

  pause() {
    this.#uploads.forEach((upload) => upload.pause());
  }

  resume() {
    this.#uploads.filter(({ state }) => state === "paused").forEach((upload) => upload.resume());
  }

  clear() {
    [...this.#uploads].forEach((upload) => upload.remove());
  }

  pick() {
    this.input.click();
  }

  // --- taking files in

  #take(found) {
    if (this.matches(":disabled")) return;
    const many = this.hasAttribute("multiple");
    const max = Number(this.getAttribute("max-files")) || Infinity;
    for (const [file, handle] of many ? found : found.slice(0, 1)) {
      const known = this.#uploads.find((upload) => !upload.file && upload.state === "paused" && upload.isSame(file));
      if (known) {
        Object.assign(known, { file, handle });
        this.#thumb(known);
        known.resume();
        continue;
      }
      if (!many) this.clear();
      const upload = new Upload(this, { file, handle });
      const count = this.#uploads.filter(({ state }) => state !== "refused").length;
      this.#show(upload);
      const problem = count >= max ? "too_many_files" : this.#problem(file);
      if (problem) upload.refuse(local(problem));
      else this.#start(upload);
    }
    this.next();
  }

  #problem(file) {
    if (!file.size) return "empty_file";
    if (file.size > (Number(this.getAttribute("max-bytes")) || Infinity)) return "file_too_large";
    return isAccepted(this.getAttribute("accept"), file) ? null : "format_not_allowed";
  }

  #start(upload) {
    if (this.hasAttribute("paused")) upload.show("paused");
    if (this.keeps) {
      upload.hold();
      upload.save(true);
    }
  }

  #drag(event) {
    if (!event.dataTransfer?.types.includes("Files") || this.matches(":disabled")) return;
    event.preventDefault();
    const left = event.type === "dragleave" && this.contains(event.relatedTarget);
    this.zone.classList.toggle("over", event.type !== "drop" && (event.type !== "dragleave" || left));
    if (event.type === "drop") dropped(event.dataTransfer).then((found) => this.#take(found));
  }

  /** A paste goes to the element that has the focus, else to the first one of the page, but never away from a text field. */
  #pasted(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    const focused = document.activeElement;
    if (!files.length || event.defaultPrevented || (focused !== this && focused !== document.body)) return;
    event.preventDefault();
    this.add(files);
  }

  async #restore() {
    if (!this.keeps) return;
    const { owner } = this;
    for (const record of (await store.try("uploads", "getAll")) ?? []) {
      const upload = new Upload(this, record);
      if (record.at < Date.now() - DAY) upload.forget();
      else if (record.owner === owner && (await upload.hold())) await this.#continue(upload);
    }
    this.next();
  }

  async #continue(upload) {
    // Another page may have finished it while this one waited for the lock.
    if (!(await store.try("uploads", "get", upload.id))) return upload.release();
    const kept = await store.try("files", "get", upload.id);
    if (kept instanceof Blob) upload.file = kept;
    else upload.handle = kept;
    if (!this.isConnected) return upload.release();
    this.#show(upload);
    if (!upload.file) upload.show("paused");
  }

  // --- the queue

  next() {
    const room = (Number(this.getAttribute("parallel")) || 3) - this.#uploads.filter(({ state }) => LIVE.includes(state)).length;
    const waiting = this.#uploads.filter(({ state, file }) => state === "queued" && file);
    for (const upload of waiting.slice(0, Math.max(0, room))) upload.run();
    this.#sync();
  }

  ended(upload) {
    const { id, name, file, state, answer, error } = upload;
    this.live.textContent = `${name}: ${this.#statusOf(upload)}`;
    if (state === "done") {
      this.#thumb(upload);
      this.#changed();
      this.tell("uploaded", upload, { id, name, file, answer });
    } else {
      const { code = "refused", status } = error;
      this.tell("refused", upload, { id, name, file, error: { code, status, message: this.#statusOf(upload) } });
    }
    this.next();
  }

  drop(upload) {
    const { row } = this.#views.get(upload) ?? {};
    const focused = row?.contains(this.shadowRoot.activeElement);
    const near = (row?.nextElementSibling ?? row?.previousElementSibling)?.querySelector("button:last-child") ?? this.button;
    row?.remove();
    this.#views.delete(upload);
    this.#uploads = this.#uploads.filter((each) => each !== upload);
    if (focused) near.focus();
    if (upload.state === "done") this.#changed();
    this.next();
  }

  tell(type, { id, name, size, loaded, state }, detail = { id, name, size, loaded, state }) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail }));
  }

  #changed() {
    this.#sync();
    this.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // --- the form

  #valueOf(answer) {
    const { resource_type, type, version, public_id, format, signature, secure_url } = answer;
    const form = this.getAttribute("value-as");
    if (form === "json") return JSON.stringify(answer);
    if (form !== "signed") return secure_url;
    // What Cloudinary's SDKs verify on the server ("preloaded"): nobody can name an asset of others.
    return `${resource_type}/${type}/v${version}/${public_id}${format ? `.${format}` : ""}#${signature}`;
  }

  #sync() {
    const done = this.#uploads.filter(({ state }) => state === "done");
    const busy = this.#uploads.some(({ state }) => LIVE.includes(state) || state === "queued");
    const data = new FormData();
    for (const { answer } of done) data.append(this.getAttribute("name"), this.#valueOf(answer));
    const state = JSON.stringify(done.map(({ name, size, type, answer }) => ({ name, size, type, answer })));
    this.#internals.setFormValue(done.length && this.hasAttribute("name") ? data : null, state);
    const missing = this.hasAttribute("required") && !done.length;
    const problem = busy ? { customError: true } : missing ? { valueMissing: true } : {};
    this.#internals.setValidity(problem, busy ? this.text("wait") : missing ? this.text("required") : "", this.button);
    globalThis[busy ? "addEventListener" : "removeEventListener"]("beforeunload", this.#leave);
  }

  formResetCallback() {
    this.clear();
  }

  formDisabledCallback() {
    this.attributeChangedCallback();
  }

  /** Back in the history, or after a reload: what was uploaded is still in the form. */
  formStateRestoreCallback(state) {
    for (const known of JSON.parse(state)) this.#show(new Upload(this, { ...known, state: "done" }));
    this.#sync();
  }

  // --- what the user sees

  text(key, values = {}) {
    const text = this.messages[key] ?? MESSAGES[key] ?? "";
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  }

  #number(value, options) {
    const language = this.closest("[lang]")?.lang || undefined;
    return new Intl.NumberFormat(language, { maximumFractionDigits: 0, ...options }).format(value);
  }

  #bytes(bytes) {
    const step = Math.min(3, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
    const unit = ["byte", "kilobyte", "megabyte", "gigabyte"][step];
    const value = bytes / 1000 ** step;
    return this.#number(value, { style: "unit", unit, unitDisplay: step ? "short" : "long", maximumFractionDigits: step > 1 && value < 100 ? 1 : 0 });
  }

  #time(seconds) {
    const minutes = seconds >= 90;
    return this.#number(Math.ceil(minutes ? seconds / 60 : seconds), { style: "unit", unit: minutes ? "minute" : "second" });
  }

  #statusOf({ state, error, loaded, size, speed, file, handle, name }, { left } = {}) {
    if (state === "refused") {
      const key = error.again && !error.status ? "unreachable" : error.code;
      return this.text(key, { name, max: this.getAttribute("max-files") }) || error.message || this.text("refused");
    }
    if (state === "paused" && !file && !handle) return this.text("found");
    if (state === "uploading" && loaded >= size) return this.text("checking");
    if (state === "retrying" && error.status && this.messages[error.code]) return this.text(error.code);
    const percent = this.#number(loaded / size, { style: "percent" });
    const status = this.text(state, { loaded: this.#bytes(loaded), size: this.#bytes(size), percent, left: left && this.#time(left) });
    if (state !== "uploading" || !(speed > 0)) return status;
    return `${status} · ${this.text("pace", { speed: this.#bytes(speed), left: this.#time((size - loaded) / speed) })}`;
  }

  #show(upload) {
    this.#uploads.push(upload);
    const { name } = upload;
    const act = () => (this.#actionOf(upload) === "pause" ? upload.pause() : upload.resume());
    const view = {
      thumb: h("div", { part: "thumb", class: "thumb", "aria-hidden": "true" }, name.includes(".") ? name.split(".").pop().slice(0, 4).toUpperCase() : ""),
      status: h("div", { part: "status", class: "status" }),
      bar: h("div", { part: "bar", class: "bar", role: "progressbar", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100 }),
      fill: h("div", { part: "fill", class: "fill" }),
      act: h("button", { type: "button", part: "action", onclick: act }),
      remove: h("button", { type: "button", part: "action", onclick: () => upload.remove() }, icon("remove")),
    };
    view.bar.append(view.fill);
    const title = h("div", { part: "name", class: "name", title: name }, name);
    view.row = h("li", {}, view.thumb, h("div", {}, title, view.status, view.bar), h("div", { class: "actions" }, view.act, view.remove));
    this.#views.set(upload, view);
    this.list.append(view.row);
    this.#label(view.remove, "remove", upload);
    this.draw(upload);
    this.#thumb(upload);
  }

  #actionOf({ state, error, file, handle }) {
    if (state === "refused") return FINAL.includes(error.code) || error.code === "unreadable" ? null : "retry";
    if (state === "paused") return file || handle ? "resume" : "again";
    return state === "done" ? null : "pause";
  }

  #label(button, key, upload) {
    const label = this.text(key, upload);
    button.setAttribute("aria-label", label);
    button.title = label;
  }

  draw(upload, values) {
    const view = this.#views.get(upload);
    if (!view) return;
    const { state, loaded, size } = upload;
    const share = state === "done" ? 1 : size ? loaded / size : 0;
    const action = this.#actionOf(upload);
    view.row.part = `item item-${state}`;
    view.row.dataset.state = state;
    view.row.classList.toggle("busy", state === "signing" || state === "retrying" || (state === "uploading" && share >= 1));
    view.status.textContent = this.#statusOf(upload, values);
    view.bar.setAttribute("aria-valuenow", Math.floor(share * 100));
    view.fill.style.transform = `scaleX(${share})`;
    if (view.action !== action) {
      if (!action && this.shadowRoot.activeElement === view.act) view.remove.focus();
      view.act.hidden = !action;
      if (action) view.act.replaceChildren(icon(action === "again" ? "upload" : action));
      if (action) this.#label(view.act, action, upload);
      view.action = action;
    }
    if (state === "done" && !view.thumb.querySelector("svg")) view.thumb.append(icon("done"));
  }

  /** A picture of the file. It is drawn on a canvas, for which no Content-Security-Policy has to allow `blob:`. */
  async #thumb(upload) {
    const { file, type, answer, state } = upload;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const url = state === "done" && answer.secure_url;
    if (url && answer.resource_type === "video" && answer.video?.codec) {
      return this.#place(upload, Object.assign(h("video", { src: `${url}#t=0.1`, preload: "metadata" }), { muted: true }));
    }
    const shown = answer?.resource_type === "image" && !["svg", "pdf"].includes(answer.format);
    if (url && shown && (!file || (answer.format === "gif" && !still))) return this.#place(upload, h("img", { src: url, alt: "" }));
    if (!file || state === "done" || !/^image\/(?!svg)/.test(type) || file.size > 50_000_000) return;
    try {
      const bitmap = await createImageBitmap(file, { resizeHeight: 144, resizeQuality: "medium" });
      const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      if (!this.#views.get(upload)?.thumb.querySelector("img")) this.#place(upload, canvas);
    } catch {} // not a picture that this browser can show: its extension is shown
  }

  #place(upload, picture) {
    const thumb = this.#views.get(upload)?.thumb;
    picture.addEventListener("error", () => picture.remove());
    thumb?.querySelector("canvas, img, video")?.remove();
    thumb?.prepend(picture);
  }
}

customElements.get("uponce-upload") ?? customElements.define("uponce-upload", UponceUpload);
