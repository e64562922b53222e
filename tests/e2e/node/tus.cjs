// node tus.cjs FILE, with a JSON object in TUS: endpoint, fields, options of tus-js-client, and what to do on the way.
//   pause: break off after the first chunk, and go on      leave: break off and end      storage: a file that remembers
//   stream: of a size that is told at the end
// Prints one JSON object a line: {"chunk": bytes} for each chunk, at last {"url", "asset", "requests"} or {"error"}.
const { createReadStream } = require("node:fs");
const { PassThrough } = require("node:stream");
const tus = require("tus-js-client");

const path = process.argv[2];
const { endpoint, fields, options = {}, pause, leave, storage, stream } = JSON.parse(process.env.TUS);
const requests = [];
const print = (value) => console.log(JSON.stringify(value));
let paused = false;

function onChunkComplete(_, accepted, total) {
  print({ chunk: accepted });
  if (accepted === total) return;
  if (leave) process.exit(0);
  if (pause && !paused) {
    paused = true;
    upload.abort().then(() => setTimeout(() => upload.start(), 50));
  }
}

// Of a file's own stream it would tell the size all the same, and too large a one.
const source = stream ? createReadStream(path).pipe(new PassThrough()) : createReadStream(path);
const upload = new tus.Upload(source, {
  endpoint,
  metadata: { ...fields, filename: "film.mp4" },
  retryDelays: [50, 100, 200, 400, 800, 1600, 3200],
  ...(storage ? { urlStorage: new tus.FileUrlStorage(storage) } : {}),
  ...(stream ? { uploadLengthDeferred: true } : {}),
  ...options,
  onChunkComplete,
  onAfterResponse: (request, response) => requests.push([request.getMethod(), response.getStatus()]),
  onError: (error) => print({ error: error.message, body: error.originalResponse?.getBody(), requests }),
  onSuccess: ({ lastResponse }) => print({ url: upload.url, asset: lastResponse.getHeader("Upload-Asset"), requests }),
});

upload.findPreviousUploads().then((previous) => {
  if (previous.length > 0) upload.resumeFromPreviousUpload(previous[0]);
  upload.start();
});
