/*! uponce upload widget. MIT. */
// <uponce-upload sign="/sign" cloud="media" multiple></uponce-upload>

// Some bundlers give a script no address.
const [HOME] = /^https?:\/\/[^/]+/.exec(import.meta.url) ?? [""];
const TUS = { "Tus-Resumable": "1.0.0" };
// How long uponce keeps an unfinished upload.
const DAY = 864e5;
const LIVE = ["signing", "uploading", "retrying"];
const BUSY = ["queued", ...LIVE];
// uponce answers so before it stores anything, also after all bytes have arrived
const STORES_NOTHING = ["database_unavailable", "storage_unavailable", "storage_full", "server_busy", "attempt_expired", "upstream_unavailable", "upstream_refused"];
// The first one is not about the bytes that were sent.
const FINAL = ["unreadable", "file_too_large", "empty_file", "format_not_allowed", "invalid_media", "media_too_large", "too_many_files"];

/** All texts. A key may also be any error code of uponce or of your sign endpoint. */
const MESSAGES = {
  choose: "Choose a file",
  chooseMany: "Choose files",
  drop: "or drop it here",
  dropMany: "or drop them here",
  camera: "Use the camera",
  queued: "Waiting",
  signing: "Preparing",
  uploading: "{percent} of {size}",
  pace: "{percent} · {left} left · {speed}/s",
  checking: "Checking the file",
  paused: "Paused at {percent}",
  retrying: "Retrying in {left} · connection lost",
  busy: "Retrying in {left} · server busy",
  offline: "No connection · continues when you are online",
  found: "Choose it again to continue",
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
  unavailable: "The server is busy. Try again later.",
  unreachable: "No connection. Try again when you are online.",
  unreadable: "This file was changed. Choose it again.",
  too_many_files: "Only {max} files are allowed.",
  file_too_large: "This file is too large.",
  empty_file: "This file is empty.",
  format_not_allowed: "Files of this type are not accepted.",
  invalid_media: "This file is damaged, or of another type.",
  media_too_large: "This picture or video is too large.",
  signature_used: "This permission to upload was already used.",
  signature_revoked: "This permission to upload was withdrawn.",
  stale_request: "This permission to upload has expired.",
  outcome_unknown: "This file may be stored already. Look before you try again.",
};

const STYLE = `
:host { display: block; position: relative; font: 1rem/1.4 var(--uponce-font, system-ui, sans-serif);
  --accent: var(--uponce-accent, light-dark(#0b5cad, #7cb8ff)); --on-accent: var(--uponce-on-accent, light-dark(#fff, #06203d));
  --text: var(--uponce-text, light-dark(#1b1f24, #e8eaed)); --muted: var(--uponce-muted, light-dark(#57606c, #a5aeba));
  --surface: var(--uponce-surface, light-dark(#fff, #171a1f)); --line: var(--uponce-line, light-dark(#d8dde4, #363c46));
  --good: var(--uponce-good, light-dark(#18794e, #4cc38a)); --bad: var(--uponce-bad, light-dark(#b42318, #ff8b80));
  --radius: var(--uponce-radius, .75rem); color: var(--text) }
:host([hidden]), [hidden] { display: none !important }
* { box-sizing: border-box }
button { font: inherit; border: 0; cursor: pointer }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
svg { width: 1.25rem; height: 1.25rem; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
.drop { display: flex; flex-wrap: wrap; align-items: center; justify-content: center; gap: .5rem .75rem; padding: 1.5rem 1rem;
  color: var(--muted); background: var(--surface); border: 2px dashed color-mix(in srgb, var(--muted) 70%, var(--surface));
  border-radius: var(--radius); text-align: center; cursor: pointer; transition: .15s }
.drop:hover, .over { border-color: var(--accent) }
.over { border-style: solid; background: color-mix(in srgb, var(--accent) 10%, var(--surface)) }
.drop > svg { width: 100%; height: 1.75rem; color: var(--accent) }
.drop button { display: inline-flex; align-items: center; gap: .5rem; min-height: 2.75rem; padding: .5rem 1rem; font-weight: 600;
  color: var(--on-accent); background: var(--accent); border-radius: calc(var(--radius) * .75) }
.drop .camera { color: var(--accent); background: none; box-shadow: inset 0 0 0 2px }
:host(:disabled) .drop { opacity: .55; pointer-events: none }
ul { container-type: inline-size; display: grid; gap: .5rem; margin: .75rem 0 0; padding: 0; list-style: none }
ul:empty { display: none }
li { display: grid; grid-template-columns: 3rem minmax(0, 1fr) auto; align-items: center; gap: .75rem; padding: .625rem;
  background: var(--surface); border: 1px solid var(--line); border-radius: var(--radius) }
.thumb { position: relative; display: grid; place-items: center; width: 3rem; height: 3rem; color: var(--muted);
  font-size: .6875rem; font-weight: 600; background: color-mix(in srgb, var(--muted) 14%, var(--surface)); border-radius: calc(var(--radius) * .67) }
.thumb > * { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; border-radius: inherit }
.thumb > svg { inset: auto -.375rem -.375rem auto; width: 1.25rem; height: 1.25rem; padding: .2rem; color: var(--surface);
  stroke-width: 4; background: var(--good); border-radius: 50%; box-shadow: 0 0 0 2px var(--surface) }
.name, .status { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.name { font-weight: 600; text-align: -webkit-match-parent; text-align: match-parent }
.status { color: var(--muted); font-size: .875rem; font-variant-numeric: tabular-nums }
.bar { height: .25rem; margin-top: .25rem; overflow: hidden; background: var(--line); border-radius: 1rem }
.fill { height: 100%; background: var(--accent); transition: width .2s linear }
.busy .fill { animation: busy 1s infinite alternate }
@keyframes busy { to { opacity: .4 } }
:is(.item-paused, .item-queued, .item-retrying) .fill { background: var(--muted) }
:is(.item-done, .item-refused) .bar { visibility: hidden }
:is(.item-done, .item-refused) > :nth-child(2) { transform: translateY(.25rem) }
.item-refused { border-color: color-mix(in srgb, var(--bad) 50%, var(--line)) }
.item-refused .status { color: var(--bad) }
:is(.item-paused, .item-retrying, .item-refused) .status { white-space: normal }
.actions { display: flex }
.actions button { display: grid; place-items: center; width: 2.25rem; height: 2.25rem; padding: 0; color: var(--muted); background: none; border-radius: 50% }
.actions button:hover { color: var(--text); background: color-mix(in srgb, var(--muted) 14%, var(--surface)) }
@media (pointer: coarse) { .actions button { width: 2.75rem; height: 2.75rem } .drop span { display: none } }
@media not (pointer: coarse) { .camera { display: none !important } }
.live { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
@container (max-width: 26rem) { li { gap: .5rem; padding: .5rem } }
@media (forced-colors: active) { .bar { outline: 1px solid } .drop button { border: 1px solid }
  .fill { background: Highlight !important; forced-color-adjust: none } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important } }
`;

const ICONS = {
  // Also of the drop zone.
  again: "M12 16V4L7 9m5-5 5 5M4 16v4h16v-4",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3 3 0 1 0 .1 0",
  pause: "M9 6v12M15 6v12",
  resume: "M8 5v14l11-7z",
  retry: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  remove: "M6 6l12 12M18 6 6 18",
  done: "M5 13l4 4L19 7",
};

/** Another record is another address. */
function address() {
  const { pathname, search, hash } = location;
  // Without the first `#`: else the address without a hash would begin the names of all others.
  return `uponce ${pathname + search} ${/^#[/!]/.test(hash) ? hash.slice(1) : ""}#`;
}

// What was uploaded at this address before a reload. A new visit begins empty.
const SAVED = {};
try {
  if (performance.getEntriesByType("navigation")[0].type === "reload") {
    for (const name in sessionStorage) if (name === "uponce" || name.startsWith(address())) SAVED[name] = sessionStorage[name];
  }
  // The page may use no storage.
} catch {}

/** Return the name of this visit. A logout deletes the name: then a form of an earlier visit begins empty. */
function visit() {
  try {
    // This page keeps the name: what it still writes after a logout is of the visit before.
    return (SAVED.visit ??= sessionStorage.uponceVisit ??= random());
    // The page may use no storage.
  } catch {}
}

// All elements on the page.
const HOSTS = new Set();

// --- small helpers

/** Build an element, whose part is its class too. Texts are never read as HTML. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.className = attributes.part ?? "";
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element[name] = value;
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

// For pictures: a phone's memory has no room for many at a time.
let turn = Promise.resolve();
// `randomUUID` needs https.
const random = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const promised = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Wait; while the browser is offline, until it is online. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => (clearTimeout(timer), removeEventListener("online", end), resolve());
    const timer = setTimeout(end, navigator.onLine ? ms : DAY);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/** Browsers do not know every type: the signature is the real limit. */
function isAccepted(accept, { name, type }) {
  const rules = accept?.toLowerCase().match(/[^\s,]+/g) ?? ["*"];
  return rules.some((rule) => {
    if (rule.endsWith("*")) return !type || type.startsWith(rule.split("*")[0]);
    return rule.includes("/") ? !type || rule === type : name.toLowerCase().endsWith(rule);
  });
}

/** The files of a drop, also inside folders. */
async function dropped({ items }) {
  // They are gone when the event is over: ask for everything first.
  const asked = [...items].map((item) => [item.getAsFile(), item.webkitGetAsEntry?.()]);
  const found = [];
  for (const [file, entry] of asked) {
    if (entry?.isDirectory) for await (const inside of filesOf(entry)) found.push(inside);
    else if (file) found.push(file);
  }
  return found;
}

async function* filesOf(entry) {
  try {
    if (entry.isFile) return yield await new Promise((resolve, reject) => entry.file(resolve, reject));
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return;
      // Not what systems hide in a folder.
      for (const each of entries) if (!/^\.|^(thumbs\.db|desktop\.ini)$/i.test(each.name)) yield* filesOf(each);
    }
  } catch {
    yield Object.assign(new File([], entry.name), { unreadable: true });
  }
}

// --- what survives a reload

let opened;

function open() {
  const request = indexedDB.open("uponce", 1);
  request.onupgradeneeded = () => {
    for (const name of ["uploads", "files"]) request.result.createObjectStore(name);
  };
  return promised(request);
}

/** Use the browser's database. Uploads also work without it. */
async function store(name, method, ...values) {
  let database;
  // A page that deletes the database, for example after a logout, waits for all tabs.
  const close = () => (database?.close(), (opened = null));
  // The browser may close the connection, for example in the background. Then try once more, with a new one.
  for (let tries = 0; tries < 2; tries++) {
    try {
      database = await (opened ??= open());
      database.onversionchange = close;
      // A logout has deleted the name, and maybe the database before this one: the next user would find the file.
      if (method === "put" && SAVED.visit !== sessionStorage.uponceVisit) return;
      return await promised(database.transaction(name, "readwrite").objectStore(name)[method](...values));
    } catch {
      close();
    }
  }
}

// --- the wire

class Refusal extends Error {
  /** `again`: the same request may succeed later. Without a status, and then without a code, the line is broken. */
  constructor(code, message, status = 0, retryAfter = null) {
    super(message ?? "");
    this.code = code;
    this.status = status;
    // uponce has all bytes and completes the upload.
    this.busy = code === "chunk_in_progress" || code === "outcome_unknown";
    this.again = retryAfter !== null || /^(0|40[89]|42[039]|5..)$/.test(status) || code === "chunk_superseded";
    this.seconds = Number(retryAfter) || 0;
  }
}

const local = (code) => new Refusal(code, "", 400);
// Not an answer of uponce: some proxy's.
const fail = () => {
  throw new Refusal();
};

/** The refusal for an error that a signer threw or answered. `fetch` throws a TypeError if the line is broken. */
function unsigned(error) {
  const { code, message, status = 400 } = error ?? {};
  if (typeof code === "string") return new Refusal(code, message, status);
  return error instanceof TypeError ? new Refusal() : local("sign_failed");
}

/** One request. A line on which nothing moves for `stall` ms is broken. */
function send(method, url, { headers = {}, body, signal, stall = 3e4, moved, left }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    const header = (name) => xhr.getResponseHeader(name);
    let timer;
    const alive = (ms) => (clearTimeout(timer), (timer = setTimeout(abort, ms)));
    xhr.open(method, url);
    xhr.responseType = "json";
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (body) {
      // Firefox fires `load` only with the answer.
      xhr.upload.onprogress = xhr.upload.onload = ({ loaded, total }) => {
        moved?.(loaded);
        if (loaded < total) return alive(stall);
        // The server checks and stores the file.
        alive(stall * 4);
        left?.();
        left = null;
      };
    }
    xhr.onloadend = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      if (signal.aborted) return reject(signal.reason);
      // Null after HEAD, 204, or a proxy's page.
      const json = xhr.response;
      if (/^2/.test(xhr.status)) return resolve({ json, header });
      // An answer to HEAD has no body, and that of a relay's account no code.
      const { code = header("X-Cld-Error-Code"), message = header("X-Cld-Error") } = json?.error ?? {};
      reject(new Refusal(code, message, xhr.status, header("Retry-After")));
    };
    signal.addEventListener("abort", abort);
    alive(stall);
    // In a sandboxed frame, Chromium throws at the question for a service worker.
    if (body && left && origin !== "null" && navigator.serviceWorker?.controller) {
      // A service worker may hide all progress, also that all bytes have left.
      alive(stall * 20);
      left();
    }
    xhr.send(body);
  });
}

// --- one file

class Upload {
  constructor(host, file, known) {
    const { name, size, type, lastModified } = file ?? known;
    Object.assign(this, { id: random(), state: "queued", loaded: 0, offset: 0, renewed: 0, name, size, type, lastModified }, known, { host, file });
  }

  async run() {
    const { signal } = (this.control = new AbortController());
    const { delay, tries } = this.host.timing;
    for (let failed = 0, asked = 0; !signal.aborted; ) {
      const before = this.offset;
      try {
        this.error = null;
        this.answer = await (this.place || this.size > this.host.partSize ? this.resumable(signal) : this.plain(signal));
        return this.end("done");
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Refusal)) return this.refuse(local("sign_failed"));
        if (this.isOver(error)) {
          this.reset();
          continue;
        }
        // A relay first sends the bytes to its account. So the widget waits for an hour or longer.
        // Such an answer shows that the line is good.
        failed = this.offset > before || (this.unknown && this.place && error.busy && ++asked < tries * 50) ? 1 : failed + 1;
        if (!error.again || failed > tries) return this.refuse(error);
        const readable = await this.file.slice(0, 1).arrayBuffer().catch(() => {});
        if (signal.aborted) return;
        if (!readable) return this.refuse(local("unreadable"));
        const wait = Math.max(error.seconds * 1000, Math.min(delay * 2 ** (failed - 1), 3e4) * (0.75 + Math.random() / 2));
        this.error = error;
        this.mark = this.speed = null;
        this.wait = wait / 1000;
        this.show("retrying");
        if (!navigator.onLine) this.host.say(this);
        await pause(wait, signal);
      }
    }
  }

  /** A new signature helps if this one expired, or its upload is gone, and the file cannot be stored already. */
  isOver({ code, status }) {
    const gone = this.place && [404, 410].includes(status);
    return (gone || code === "stale_request") && !this.unknown && ++this.renewed <= 3;
  }

  reset() {
    this.grant = this.place = this.unknown = null;
    this.offset = this.loaded = 0;
  }

  /** It is kept until its outcome is known: with another signature the file could be stored twice. */
  async signed(signal) {
    if (!this.grant) {
      this.show("signing");
      const key = random();
      const answer = await this.host.ask(key, this, signal);
      signal.throwIfAborted();
      if (!answer?.fields) throw unsigned(answer?.error);
      this.grant = { url: new URL(answer.url ?? this.host.target, location.href).href, fields: answer.fields, key };
      await this.save();
      signal.throwIfAborted();
    }
    this.show("uploading");
    return this.grant;
  }

  /** A small file: one POST. If the reply is lost, the same key asks for the same answer. */
  async plain(signal) {
    const { url, fields, key } = await this.signed(signal);
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    body.append("file", this.file, this.name);
    const { json } = await this.send("POST", url, { headers: { "Idempotency-Key": key }, body, signal });
    return json ?? fail();
  }

  /** A large file: parts, by tus. Its address says how much has arrived, and which asset it became. */
  async resumable(signal) {
    if (this.place) {
      // Not queued: the queue would run it again.
      this.show("uploading");
      this.arrived(await this.send("HEAD", this.place, { headers: TUS, signal }));
    } else await this.begin(signal);
    while (this.offset < this.size) {
      this.show("uploading");
      const body = this.file.slice(this.offset, this.offset + this.host.partSize);
      const headers = { ...TUS, "Upload-Offset": this.offset, "Content-Type": "application/offset+octet-stream", Prefer: "return=representation" };
      const reply = await this.send("PATCH", this.place, { headers, body, signal });
      this.arrived(reply);
      if (reply.json) return reply.json;
    }
    return (await this.send("GET", this.place, { signal })).json ?? fail();
  }

  async begin(signal) {
    const { url, fields } = await this.signed(signal);
    const [, base, cloud, type = "auto"] = /^(.*)\/v1_1\/([^/]+)\/(?:(\w+)\/)?upload/.exec(url) ?? [];
    const metadata = Object.entries({ ...fields, resource_type: type, filename: this.name }).map(([name, value]) => `${name} ${base64(value)}`);
    const headers = { ...TUS, "Upload-Length": this.size, "Upload-Metadata": metadata.join() };
    try {
      const { header } = await this.send("POST", `${base}/tus/${cloud}/`, { headers, signal });
      // A proxy may have hidden https.
      this.place = base + (/\/tus\/.+/.exec(header("Location"))?.[0] ?? fail());
    } catch (error) {
      // The address is lost with the reply. No byte was sent.
      if (!error.status) this.grant = null;
      throw error;
    }
    await this.save();
    signal.throwIfAborted();
  }

  async send(method, url, options) {
    const { offset, unknown } = this;
    let saved;
    const moved = (loaded) => this.moved(Math.min(offset + loaded, this.size));
    // All bytes have left: until a reply says more, the file may be stored.
    const left = () => offset + (options.body?.size ?? this.size) < this.size || ((this.unknown = true), (saved = this.save()));
    // After a 503 to the last part, a HEAD completes the upload.
    if (this.place && this.loaded >= this.size) left();
    try {
      return await send(method, url, { ...options, moved, left, stall: this.host.timing.stall });
    } catch (error) {
      // The user may leave the page when it shows the error.
      await saved;
      if (!error.busy && (/^4/.test(error.status) || STORES_NOTHING.includes(error.code))) {
        // Refused, but maybe not the tries before.
        this.unknown = unknown;
        await this.save();
      }
      throw error;
    }
  }

  arrived({ header }) {
    this.offset = this.loaded = Number(header("Upload-Offset") ?? fail());
    this.unknown = this.offset >= this.size;
  }

  moved(loaded) {
    this.mark ??= { at: performance.now(), loaded };
    const seconds = (performance.now() - this.mark.at) / 1000;
    if (seconds > 0.5) this.speed = (loaded - this.mark.loaded) / seconds;
    this.loaded = loaded;
    this.show("uploading");
  }

  stop() {
    this.control?.abort();
    this.mark = this.speed = null;
  }

  pause() {
    if (!BUSY.includes(this.state)) return;
    this.stop();
    this.show("paused");
    this.save();
    this.host.next();
  }

  resume() {
    if (!this.file) return this.host.pick();
    if (this.state === "refused") this.keep();
    this.show("queued");
    this.save();
    this.host.next();
  }

  refuse(error) {
    // The refusal of this try says nothing of a try before whose reply was lost, unless it is about the bytes that were sent.
    const ofBytes = ["content_mismatch", "upstream_refused", ...FINAL.slice(1)].includes(error.code);
    this.error = this.unknown && !error.again && !ofBytes ? local("outcome_unknown") : error;
    // A definite end: the next try needs a new signature.
    if (!error.again) this.reset();
    this.end("refused");
  }

  end(state) {
    this.stop();
    if (!this.error?.again) this.forget();
    this.show(state);
    this.host.ended(this);
  }

  remove() {
    this.stop();
    if (this.place && !this.answer) send("DELETE", this.place, { headers: TUS, signal: new AbortController().signal }).catch(() => {});
    this.forget();
    this.host.drop(this);
  }

  keep() {
    if (!this.host.keeps) return;
    if (!this.release) this.hold();
    this.save();
    if (this.size <= this.host.timing.keep) store("files", "put", this.file, this.id);
  }

  async save(paused = this.state === "paused") {
    const { id, name, size, type, lastModified, grant, place, loaded, unknown, host } = this;
    const record = { id, name, size, type, lastModified, grant, place, loaded, unknown, paused, owner: host.owner, tab: SAVED.uponce, at: Date.now() };
    if (host.keeps) await store("uploads", "put", record, id);
  }

  /** The lock is freed last: a tab that waits for it continues what it finds. */
  async forget() {
    const { id, host, release } = this;
    this.release = null;
    if (host.keeps) await Promise.all(["uploads", "files"].map((name) => store(name, "delete", id)));
    release?.();
  }

  /** Of all tabs one has this upload. The browser frees the lock when the page ends or crashes. */
  hold(ifAvailable = false) {
    const over = new Promise((release) => (this.release = release));
    return new Promise((resolve) =>
      navigator.locks.request(`uponce-${this.id}`, { ifAvailable }, (lock) => (resolve(lock), lock && over)).catch(() => {}),
    );
  }

  /** Take the lock. If it becomes free, the tab that had it may be reloading: that tab comes first. */
  async take(mine) {
    while (!(await this.hold(!mine))) {
      await this.hold();
      this.release();
      await new Promise((resolve) => setTimeout(resolve, this.host.timing.delay * 5));
    }
  }

  show(state) {
    this.state = state;
    this.host.draw(this);
  }
}

// --- the element

export class UponceUpload extends (globalThis.HTMLElement ?? Object) {
  static formAssociated = true;
  static observedAttributes = ["multiple", "accept", "capture", "required", "name", "value-as"];

  #internals = this.attachInternals();
  #uploads = [];
  // The browser asks whether to leave.
  #leave = (event) => (event.returnValue = true);

  #messages;
  #timing;
  // See widget.d.ts. A page may have set them before this script had loaded.
  signer = this.signer;
  headers = this.headers;

  constructor() {
    super();
    this.#internals.role = "group";
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    // A strict Content-Security-Policy allows this sheet. Without `light-dark` it has the light colours.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS.supports("color", "light-dark(red, red)") ? STYLE : STYLE.replace(/light-dark\((.+?), .+?\)/g, "$1"));
    root.adoptedStyleSheets = [sheet];
    this.input = h("input", { type: "file", hidden: "", onchange: ({ target }) => (this.add(target.files), (target.value = "")) });
    this.button = h("button", { type: "button", part: "button" });
    this.camera = h("button", { type: "button", part: "camera" });
    this.hint = h("span", { part: "hint" });
    const arrow = Object.assign(icon("again"), { part: "icon" });
    this.zone = h("div", { part: "drop", onclick: ({ target }) => this.pick(this.camera.contains(target)) }, arrow, this.button, this.camera, this.hint);
    this.list = h("ul", { part: "list", role: "list" });
    this.live = h("div", { class: "live", role: "status", "aria-atomic": false });
    root.append(this.input, this.zone, this.list, this.live);
    for (const type of ["dragover", "dragleave", "drop"]) this.addEventListener(type, this.#drag);
    // A removal moves the focus: a held key would remove the next file too.
    this.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
    for (const name of ["timing", "messages"]) {
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
  }

  get timing() {
    return this.#timing;
  }

  set timing(timing) {
    this.#timing = { delay: 1000, tries: 8, stall: 3e4, keep: 2e8, ...timing };
  }

  get messages() {
    return this.#messages;
  }

  set messages(messages) {
    this.#messages = messages ?? {};
    this.attributeChangedCallback();
    this.#uploads.forEach((upload) => ((upload.view.action = ""), this.draw(upload)));
  }

  connectedCallback() {
    const place = [...document.querySelectorAll("uponce-upload")].indexOf(this);
    // By this name, uploads find the element after a reload.
    this.owner ??= address() + (this.id || this.getAttribute("name") + place);
    while ([...HOSTS].some((host) => host.owner === this.owner)) this.owner += "+";
    HOSTS.add(this);
    // Now: the first file may be finished after a logout.
    this.hasAttribute("forget") || visit();
    this.formStateRestoreCallback(SAVED[this.owner] ?? "[]");
    delete SAVED[this.owner];
    this.attributeChangedCallback();
    document.addEventListener("paste", this.#pasted);
    this.restored ??= this.#restore();
  }

  /** Stop, unless it was moved. What is unfinished or may be tried again continues when the element is there again. */
  disconnectedCallback() {
    HOSTS.delete(this);
    document.removeEventListener("paste", this.#pasted);
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.restored = null;
      for (const upload of this.#uploads.filter(({ state, release }) => release || !["done", "refused"].includes(state))) {
        upload.stop();
        upload.release?.();
        this.drop(upload);
      }
      this.#sync();
    });
  }

  attributeChangedCallback() {
    const many = this.hasAttribute("multiple");
    this.input.multiple = many;
    this.input.accept = this.getAttribute("accept") ?? "";
    this.camera.hidden = !this.hasAttribute("capture");
    this.button.disabled = this.camera.disabled = this.matches(":disabled");
    this.button.textContent = this.text(many ? "chooseMany" : "choose");
    this.hint.textContent = this.text(many ? "dropMany" : "drop");
    this.camera.replaceChildren(icon("camera"), this.text("camera"));
    this.#sync();
  }

  // --- settings

  get partSize() {
    return Number(this.getAttribute("part-size")) || 16e6;
  }

  get target() {
    return `${(this.getAttribute("server") ?? HOME).replace(/\/$/, "")}/v1_1/${this.getAttribute("cloud")}/auto/upload`;
  }

  get keeps() {
    return navigator.locks && globalThis.indexedDB && !this.hasAttribute("forget");
  }

  async ask(nonce, { file, name, size, type }, signal) {
    const params = { nonce };
    for (const key of ["public_id", "folder", "tags"]) if (this.hasAttribute(key)) params[key] = this.getAttribute(key);
    try {
      if (this.signer) return await this.signer(params, file, signal);
      const headers = { "Content-Type": "application/json", ...JSON.parse(this.getAttribute("headers")), ...this.headers };
      const body = JSON.stringify({ params, file: { name, size, type } });
      return (await send("POST", this.getAttribute("sign"), { headers, body, signal, stall: this.timing.stall })).json;
    } catch (error) {
      if (!(error instanceof Refusal)) throw unsigned(error);
      if (!error.message && !error.again) error.code ??= "sign_failed";
      throw error;
    }
  }

  // --- what a page may call

  get uploads() {
    return this.#uploads.map(({ id, name, size, state, loaded, answer, error }) => {
      return { id, name, size, state, loaded, answer, error: error && this.#errorOf({ error, name }) };
    });
  }

  get answers() {
    return this.#uploads.filter(({ state }) => state === "done").map(({ answer }) => answer);
  }

  get value() {
    const values = this.answers.map((answer) => this.#valueOf(answer));
    return this.input.multiple ? values : (values[0] ?? "");
  }

  get form() {
    return this.#internals.form;
  }

  get validity() {
    return this.#internals.validity;
  }

  checkValidity() {
    return this.#internals.checkValidity();
  }

  reportValidity() {
    return this.#internals.reportValidity();
  }

  pause() {
    this.#uploads.forEach((upload) => upload.pause());
  }

  resume() {
    this.#uploads.forEach((upload) => upload.state === "paused" && upload.resume());
  }

  clear() {
    // Each removal makes a new list.
    this.#uploads.forEach((upload) => upload.remove());
  }

  pick(camera) {
    this.input.removeAttribute("capture");
    if (camera) this.input.setAttribute("capture", this.getAttribute("capture") || "environment");
    this.input.click();
  }

  // --- taking files in

  add(files) {
    if (this.matches(":disabled")) return;
    const many = this.input.multiple;
    for (const file of many ? files : [...files].slice(0, 1)) {
      const known = this.#uploads.find((upload) => !upload.file && upload.state === "paused" && ["name", "size", "lastModified"].every((key) => upload[key] === file[key]));
      if (known) {
        known.file = file;
        this.#thumb(known);
        known.resume();
        continue;
      }
      const upload = new Upload(this, file);
      const problem = this.#problem(file);
      // A refused file replaces no other.
      if (!many) this.#uploads.filter(({ state }) => !problem || state === "refused").forEach((each) => each.remove());
      this.#show(upload);
      if (problem) {
        upload.refuse(local(problem));
        continue;
      }
      if (this.hasAttribute("paused")) upload.show("paused");
      upload.keep();
    }
    this.next();
  }

  /** A refused file that may be tried again has its place too. */
  get #count() {
    return this.#uploads.filter((upload) => upload.state === "done" || this.#actionOf(upload)).length;
  }

  #problem(file) {
    if (this.input.multiple && this.#count >= (Number(this.getAttribute("max-files")) || Infinity)) return "too_many_files";
    if (!file.size) return file.unreadable ? "unreadable" : "empty_file";
    if (file.size > (Number(this.getAttribute("max-bytes")) || Infinity)) return "file_too_large";
    return isAccepted(this.getAttribute("accept"), file) ? null : "format_not_allowed";
  }

  #drag = (event) => {
    const { type, dataTransfer } = event;
    if (!dataTransfer?.types.includes("Files")) return;
    // Else the browser opens the file in place of the page.
    event.preventDefault();
    if (this.matches(":disabled")) return (dataTransfer.dropEffect = "none");
    this.zone.classList.toggle("over", type === "dragover" || (type === "dragleave" && this.contains(event.relatedTarget)));
    if (type === "drop") dropped(dataTransfer).then((files) => this.add(files));
  };

  /** A paste goes to the element with the focus. Without a focus, it goes to the first one that is visible and enabled. */
  #pasted = (event) => {
    const files = event.clipboardData?.files ?? [];
    if (!files.length || event.defaultPrevented || this.matches(":disabled")) return;
    const focus = document.activeElement;
    // Safari before 17.4 does not say what is visible. The page gives `live` no style, so it is visible if the widget is.
    if (focus !== this && (focus !== document.body || this.live.checkVisibility?.({ checkVisibilityCSS: true }) === false)) return;
    event.preventDefault();
    this.add(files);
  };

  async #restore() {
    for (const record of (this.keeps && (await store("uploads", "getAll"))) || []) {
      const upload = new Upload(this, null, record);
      if (record.at < Date.now() - DAY) upload.forget();
      else if (record.owner === this.owner) upload.take(record.tab === SAVED.uponce).then(() => this.#continue(upload));
    }
  }

  async #continue(upload) {
    // Another tab may have sent more of it since, or finished it.
    const record = await store("uploads", "get", upload.id);
    Object.assign(upload, record, { file: await store("files", "get", upload.id) });
    const full = !this.input.multiple && this.#count;
    const mine = record?.tab === SAVED.uponce;
    // The form may be sent with another file. Then this one waits for the user. Its own tab ignores what another tab marks.
    if (full && record) await store("uploads", "put", { ...record, [mine ? "paused" : "full"]: true }, upload.id);
    if (full || !record || !this.isConnected) return upload.release();
    if (!upload.file || upload.paused || (record.full && !mine)) upload.state = "paused";
    upload.save();
    this.#show(upload);
    this.next();
  }

  // --- the queue

  next() {
    this.#sync();
    // Not at once: a call that stops many files begins none of them.
    // The other elements come first.
    queueMicrotask(() => {
      HOSTS.delete(this) && HOSTS.add(this);
      [...HOSTS, this].forEach((host) => host.#begin());
    });
  }

  #begin() {
    const live = (...hosts) => hosts.flatMap((host) => host.#uploads.filter(({ state }) => LIVE.includes(state))).length;
    for (const upload of this.#uploads.filter(({ state }) => state === "queued")) {
      // Over HTTP/1.1 a browser has six connections to a server. A request that waits for one would count as a broken line.
      if (live(this) >= (Number(this.getAttribute("parallel")) || 3) || live(...HOSTS) >= 5) return;
      upload.run();
    }
  }

  ended(upload) {
    const { id, name, file, answer } = upload;
    this.say(upload);
    if (answer) {
      this.#thumb(upload);
      this.#changed();
      this.tell("uploaded", { id, name, file, answer });
    } else {
      this.#sync();
      this.tell("refused", { id, name, file, error: this.#errorOf(upload) });
    }
    this.next();
  }

  say(upload) {
    const line = h("div", {}, `${upload.name}: ${this.#statusOf(upload)}`);
    // A screen reader reads each new line, at most 49 if many files are refused together.
    this.live.append(line);
    [...this.live.children].at(-50)?.remove();
    // Else it reads old lines too when the user goes through the page.
    setTimeout(() => line.remove(), 1e4);
  }

  drop(upload) {
    const focused = upload.view?.row.contains(this.shadowRoot.activeElement);
    const index = this.#uploads.indexOf(upload);
    upload.view?.row.remove();
    upload.view = null;
    this.#uploads = this.#uploads.filter((each) => each !== upload);
    const near = this.#uploads[index] ?? this.#uploads.at(-1);
    if (focused) (near?.view.remove ?? this.button).focus();
    if (upload.state === "done") this.#changed();
    this.next();
  }

  tell(type, detail) {
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
    // Cloudinary's SDKs verify this form ("preloaded") on the server.
    return `${resource_type}/${type}/v${version}/${public_id}${format ? `.${format}` : ""}#${signature}`;
  }

  #sync() {
    const done = this.#uploads.filter(({ state }) => state === "done");
    const busy = this.#uploads.some(({ state }) => BUSY.includes(state));
    const data = new FormData();
    for (const { answer } of done) data.append(this.getAttribute("name"), this.#valueOf(answer));
    // The browser keeps this state too, for its Back button.
    const state = JSON.stringify((this.hasAttribute("forget") ? [] : done).map(({ name, size, type, answer }) => ({ name, size, type, answer, visit: visit() })));
    try {
      if (this.owner && this.keeps) {
        // The next form at this address begins empty.
        sessionStorage[this.owner] = this.isConnected ? state : "[]";
        // Names this tab. A reload keeps the name, a duplicate of the tab gets another one.
        sessionStorage.uponce = SAVED.uponce ??= random();
      }
    } catch {}
    this.#internals.setFormValue(done.length && this.hasAttribute("name") ? data : null, state);
    const valueMissing = this.hasAttribute("required") && !done.length && !busy;
    this.#internals.setValidity({ customError: busy, valueMissing }, this.text(busy ? "wait" : "required"), this.button);
    (busy ? addEventListener : removeEventListener)("beforeunload", this.#leave);
  }

  /** The next form at this address may be of another record. There, what this form leaves unfinished waits for the user. */
  formAssociatedCallback(form) {
    form?.addEventListener("submit", () => this.#uploads.forEach((upload) => upload.release && upload.save(true)));
  }

  formResetCallback() {
    this.clear();
  }

  formDisabledCallback() {
    this.attributeChangedCallback();
  }

  formStateRestoreCallback(state) {
    if (this.answers.length) return;
    for (const known of JSON.parse(state)) if (known.visit === visit()) this.#show(new Upload(this, null, { ...known, state: "done" }));
    this.#sync();
  }

  // --- what the user sees

  text(key, values = {}) {
    const text = this.#messages[key] ?? MESSAGES[key];
    // A code may be "constructor".
    return typeof text === "string" ? text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "") : "";
  }

  #number(value, options) {
    const format = (language) => value.toLocaleString(language, { maximumFractionDigits: 0, ...options });
    try {
      return format(this.closest("[lang]")?.lang.replaceAll("_", "-"));
    } catch {
      // The page names no language, or an unknown one.
      return format();
    }
  }

  #bytes(bytes) {
    const [scale, unit] = bytes < 1e6 ? [1e3, "kilobyte"] : bytes < 1e9 ? [1e6, "megabyte"] : [1e9, "gigabyte"];
    return this.#number(bytes / scale, { style: "unit", unit, maximumFractionDigits: bytes < 10 * scale ? 1 : 0 });
  }

  #time(seconds = 0) {
    const [scale, unit] = seconds < 90 ? [1, "second"] : [60, "minute"];
    return this.#number(Math.ceil(seconds / scale), { style: "unit", unit });
  }

  #errorOf({ error, name }) {
    const { status, again, code, message } = error;
    const usual = !again ? "refused" : status ? "unavailable" : "unreachable";
    const values = { name, max: this.getAttribute("max-files") };
    return { code: code ?? usual, status, message: this.text(code, values) || message || this.text(usual, values) };
  }

  #statusOf(upload) {
    const { state, error, loaded, size, speed, file, wait } = upload;
    if (state === "refused") return this.#errorOf(upload).message;
    if (state === "paused" && !file) return this.text("found");
    if (state === "uploading" && loaded >= size) return this.text("checking");
    const values = { percent: this.#number(loaded / size, { style: "percent" }), size: this.#bytes(size), left: this.#time(wait) };
    if (state === "retrying") return this.text(!navigator.onLine ? "offline" : error.status ? "busy" : state, values);
    if (state !== "uploading" || !(speed > 0)) return this.text(state, values);
    return this.text("pace", { ...values, speed: this.#bytes(speed), left: this.#time((size - loaded) / speed) });
  }

  #show(upload) {
    this.#uploads.push(upload);
    const { name } = upload;
    // The second click of a double click hits a button that has changed, or that of the next row.
    const button = (act, ...icons) => h("button", { type: "button", part: "action", onclick: ({ detail }) => detail > 1 || act() }, ...icons);
    const view = (upload.view = {
      thumb: h("div", { part: "thumb", "aria-hidden": true }, /\.(\w{1,4})$/.exec(name)?.[1].toUpperCase() ?? ""),
      status: h("div", { part: "status" }),
      bar: h("div", { part: "bar", role: "progressbar", "aria-label": name }, h("div", { part: "fill" })),
      act: button(() => (this.#actionOf(upload) === "pause" ? upload.pause() : upload.resume())),
      remove: button(() => upload.remove(), icon("remove")),
    });
    const title = h("div", { part: "name", dir: "auto", title: name }, name);
    view.row = h("li", {}, view.thumb, h("div", {}, title, view.status, view.bar), h("div", { class: "actions" }, view.act, view.remove));
    this.list.append(view.row);
    this.draw(upload);
    this.#thumb(upload);
  }

  #actionOf({ state, error, file }) {
    if (state === "refused") return FINAL.includes(error.code) ? null : "retry";
    if (state === "paused") return file ? "resume" : "again";
    return state === "done" ? null : "pause";
  }

  #label(button, key, upload) {
    button.title = this.text(key, upload);
    button.setAttribute("aria-label", button.title);
  }

  draw(upload) {
    const { view, id, name, size, loaded, state } = upload;
    if (!view) return;
    const share = state === "done" ? 1 : loaded / size || 0;
    const action = this.#actionOf(upload);
    view.row.className = view.row.part = `item item-${state}`;
    view.row.classList.toggle("busy", state === "uploading" && share >= 1);
    view.status.textContent = this.#statusOf(upload);
    view.bar.setAttribute("aria-valuenow", Math.floor(share * 100));
    view.bar.firstChild.style.width = `${share * 100}%`;
    if (view.action !== action) {
      if (!action && this.shadowRoot.activeElement === view.act) view.remove.focus();
      view.act.hidden = !action;
      if (action) {
        view.act.replaceChildren(icon(action));
        this.#label(view.act, action, upload);
      }
      this.#label(view.remove, "remove", upload);
      view.action = action;
    }
    if (state === "done" && !view.thumb.querySelector("svg")) view.thumb.append(icon("done"));
    this.tell("progress", { id, name, size, loaded, state });
  }

  /** A picture, on a canvas: a Content-Security-Policy may forbid `blob:`. */
  #thumb(upload) {
    const { file, type, answer } = upload;
    const { secure_url: src, resource_type, format, bytes, video } = answer ?? {};
    if (resource_type === "video" && video?.codec) return this.#place(upload, h("video", { src: `${src}#t=0.1`, preload: "metadata" }));
    const wanted = format === "gif" ? !matchMedia("(prefers-reduced-motion: reduce)").matches : !file && !["svg", "pdf"].includes(format);
    if (resource_type === "image" && bytes < 2e6 && wanted) return this.#place(upload, h("img", { loading: "lazy", src, alt: "" }));
    if (!file || answer || !/^image\/(?!svg)/.test(type) || file.size > 5e7) return;
    const draw = async () => {
      if (!upload.view) return;
      const bitmap = await createImageBitmap(file, { resizeHeight: 144, resizeQuality: "medium" });
      const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      if (!upload.view?.thumb.querySelector("img")) this.#place(upload, canvas);
    };
    // Without a picture, the extension is shown.
    turn = turn.then(draw).catch(() => {});
  }

  #place(upload, picture) {
    picture.onerror = () => picture.remove();
    upload.view?.thumb.querySelector("canvas, img, video")?.remove();
    upload.view?.thumb.prepend(picture);
  }
}

try {
  customElements.define("uponce-upload", UponceUpload);
  // A page may load this file twice. Servers that render pages import this file too.
} catch {}
