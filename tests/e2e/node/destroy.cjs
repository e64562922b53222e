// Upload a file and delete it twice, with the SDK.
// node destroy.cjs PACKAGE FILE, with CLOUDINARY_URL set. Prints where the file was, and the two answers or errors.
const [, , name, path] = process.argv;
const cloudinary = require(name).v2;

async function main() {
  const { public_id, secure_url } = await cloudinary.uploader.upload(path, { folder: `doomed ${name}` });
  const told = [];
  for (const invalidate of [true, undefined])
    told.push(await cloudinary.uploader.destroy(public_id, { invalidate }).catch((error) => ({ error: error.error ?? error })));
  console.log(JSON.stringify({ url: secure_url, told }));
}

main();
