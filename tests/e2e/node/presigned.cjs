// A program that was handed a signature, and no secret: the SDK posts it as it is, twice.
// node presigned.cjs PACKAGE FILE SIGNED, with CLOUDINARY_URL set; SIGNED is the JSON of the signed fields.
const [, , name, path, signed] = process.argv;
const cloudinary = require(name).v2;
const options = { resource_type: "auto", ...JSON.parse(signed) };

async function main() {
  const answer = await cloudinary.uploader.upload(path, { ...options });
  const error = await cloudinary.uploader.upload(path, { ...options }).then(() => null, (reason) => reason);
  console.log(JSON.stringify({ answer, error }));
}

main();
