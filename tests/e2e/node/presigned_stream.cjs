// The same as presigned.cjs with a stream, for which the SDK adds the field `stream=true` that nobody signed.
// node presigned_stream.cjs PACKAGE FILE SIGNED, with CLOUDINARY_URL set; SIGNED is the JSON of the signed fields.
const { createReadStream } = require("node:fs");

const [, , name, path, signed] = process.argv;
const cloudinary = require(name).v2;
const options = { resource_type: "auto", ...JSON.parse(signed) };

function streamed() {
  return new Promise((resolve) => {
    const settle = (error, answer) => resolve({ error: error ?? null, answer: answer ?? null });
    createReadStream(path).pipe(cloudinary.uploader.upload_stream({ ...options }, settle));
  });
}

async function main() {
  const first = await streamed();
  const second = await streamed();
  console.log(JSON.stringify([first, second]));
}

main();
