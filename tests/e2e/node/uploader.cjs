// What a server does with the SDK: a path, a data URI, a stream, a large file.
// node uploader.cjs PACKAGE FILE, with CLOUDINARY_URL set. Prints the answers by kind.
const { createReadStream, readFileSync } = require("node:fs");

const [, , name, path] = process.argv;
const cloudinary = require(name).v2;
const options = { folder: `by ${name}`, resource_type: "auto", tags: ["one", "two"], context: { alt: "a=b|c" } };

function streamed(from) {
  return new Promise((resolve, reject) => {
    const settle = (error, answer) => (error ? reject(error) : resolve(answer));
    from.pipe(cloudinary.uploader.upload_stream(options, settle));
  });
}

function large() {
  return new Promise((resolve, reject) => {
    const settle = (error, answer) => (error ? reject(error) : resolve(answer));
    cloudinary.uploader.upload_large(path, options, settle);
  });
}

async function main() {
  const uri = `data:application/octet-stream;base64,${readFileSync(path).toString("base64")}`;
  const answers = {
    path: await cloudinary.uploader.upload(path, options),
    uri: await cloudinary.uploader.upload(uri, options),
    stream: await streamed(createReadStream(path)),
    large: await large(),
  };
  console.log(JSON.stringify(answers));
}

main();
