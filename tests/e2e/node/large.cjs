// node large.cjs PACKAGE FILE, with CLOUDINARY_URL set: upload_large of a path, and the same as a stream. Prints both answers.
const { createReadStream } = require("node:fs");

const [, , name, path] = process.argv;
const { uploader } = require(name).v2;
const options = { folder: `large by ${name}`, resource_type: "video", chunk_size: 6_000_000 };

function answered(begin) {
  return new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer))));
}

async function main() {
  const answers = [
    await answered((settle) => uploader.upload_large(path, options, settle)),
    await answered((settle) => {
      const stream = uploader.upload_chunked_stream({ ...options, folder: `streamed by ${name}` }, settle);
      createReadStream(path).pipe(stream);
    }),
  ];
  console.log(JSON.stringify(answers));
}

main();
