// The code that a developer writes, with the values that are on the screen.

const json = (value, indent = 2) => JSON.stringify(value, null, indent);
const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
const FORM = `const form = new FormData();
for (const [name, value] of Object.entries(fields)) form.append(name, value);
form.append("file", input.files[0]); // the file comes last`;

export const snippets = [
  {
    name: "fetch",
    about: "In the page. Your back end made these fields.",
    code: ({ url, fields }) => `const fields = ${json(fields)};

${FORM}

const response = await fetch(${json(url)}, { method: "POST", body: form });
const answer = await response.json();
if (!response.ok) throw new Error(answer.error.message);
image.src = answer.secure_url;
`,
  },
  {
    name: "XHR",
    about: "In the page, with a progress bar.",
    code: ({ url, fields }) => `const fields = ${json(fields)};

${FORM}

const xhr = new XMLHttpRequest();
xhr.open("POST", ${json(url)});
xhr.setRequestHeader("Idempotency-Key", fields.nonce); // so that you can ask again
xhr.upload.onprogress = (event) => (bar.value = event.loaded / event.total);
xhr.onload = () => console.log(xhr.status, JSON.parse(xhr.responseText));
xhr.send(form);
`,
  },
  {
    name: "Widget",
    about: "In the page. It asks /sign once for each file.",
    code: ({ origin }) => `<script type="module" src="${origin}/widget.js"></script>

<uponce-upload sign="/sign" cloud="playground" multiple></uponce-upload>
`,
  },
  {
    name: "Uppy",
    about: "In the page. One signature for each file.",
    code: ({ url, fields }) => `import Uppy from "@uppy/core";
import XHRUpload from "@uppy/xhr-upload";

const uppy = new Uppy();
const mayRetry = (xhr) => xhr.status === 0 || xhr.status >= 500 || xhr.getResponseHeader("Retry-After") !== null;
const asking = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ params: {} }) };
uppy.use(XHRUpload, {
  endpoint: ${json(url)},
  shouldRetry: mayRetry,
  timeout: 90_000, // no warning while the server asks to wait
  headers: (file) => ({ "Idempotency-Key": file.meta.nonce }),
  async onAfterResponse(xhr, retries) {
    const seconds = Number(xhr.getResponseHeader("Retry-After")) || 0; // the server asks to wait
    if (retries < 3) await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  },
});
uppy.addPreProcessor(async (ids) => {
  for (const id of ids) {
    if (uppy.getFile(id).meta.nonce) continue; // after a lost reply, with the same signature
    const { fields, error } = await (await fetch("/sign", asking)).json();
    if (error) throw new Error(error.message);
    // ${Object.keys(fields).join(", ")}
    uppy.setFileMeta(id, fields);
    uppy.setFileState(id, { xhrUpload: { allowedMetaFields: Object.keys(fields) } });
  }
});
uppy.on("upload-error", (file, error, xhr) => {
  if (xhr && !mayRetry(xhr)) uppy.setFileMeta(file.id, { nonce: undefined }); // the next try gets a new signature
});
`,
  },
  {
    name: "Node",
    about: "A program on Node 20 or newer.",
    code: ({ url, fields, file }) => `import { openAsBlob } from "node:fs";

const fields = ${json(fields)};

const form = new FormData();
for (const [name, value] of Object.entries(fields)) form.append(name, value);
form.append("file", await openAsBlob(${json(file)}), ${json(file)});

const response = await fetch(${json(url)}, { method: "POST", body: form });
console.log(response.status, await response.json());
`,
  },
  {
    name: "Python",
    about: "A program with the package requests.",
    code: ({ url, fields, file }) => `import requests

fields = ${json(fields, 4)}

with open(${json(file)}, "rb") as file:
    response = requests.post(
        ${json(url)}, data=fields, files={"file": file}
    )
print(response.status_code, response.json())
`,
  },
  {
    name: "curl",
    about: "In a shell.",
    code: ({ url, fields, file }) => {
      const words = Object.entries(fields).map(([name, value]) => `  --form-string ${quoted(`${name}=${value}`)} \\`);
      return `curl ${quoted(url)} \\\n${words.join("\n")}\n  -F ${quoted(`file=@"${file.replace(/["\\]/g, "\\$&")}"`)}\n`;
    },
  },
];
