// A back end that signs and the page that posts, in one program: twice with one signature.
// node sign_and_post.cjs PACKAGE FILE first|last, with CLOUDINARY_URL set. Prints both answers.
const { readFile } = require("node:fs/promises");
const { basename } = require("node:path");

const [, , name, path, place] = process.argv;
const cloudinary = require(name).v2;
const { cloud_name, api_key, api_secret, upload_prefix } = cloudinary.config();

async function main() {
  const timestamp = Math.round(Date.now() / 1000);
  const folder = `${name}-${basename(path)}-${place}`;
  const signature = cloudinary.utils.api_sign_request({ timestamp, folder }, api_secret);

  const file = new Blob([await readFile(path)]);
  const form = new FormData();
  if (place === "first") form.append("file", file, basename(path));
  for (const [field, value] of Object.entries({ timestamp, folder, api_key, signature })) form.append(field, value);
  if (place === "last") form.append("file", file, basename(path));

  const answers = [];
  for (let time = 0; time < 2; time++) {
    const response = await fetch(`${upload_prefix}/v1_1/${cloud_name}/auto/upload`, { method: "POST", body: form });
    answers.push({
      status: response.status,
      error: response.headers.get("x-cld-error"),
      body: await response.json(),
    });
  }
  console.log(JSON.stringify(answers));
}

main();
