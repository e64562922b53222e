// The signed delivery URL of an asset that is not public.
// node url.cjs PACKAGE PUBLIC_ID, with CLOUDINARY_URL set. Prints the short and the long form.
const [, , name, publicId] = process.argv;
const cloudinary = require(name).v2;
const where = { type: "authenticated", format: "jpg", sign_url: true, secure: false, analytics: false };
const cname = new URL(cloudinary.config().upload_prefix).host;

console.log(JSON.stringify([false, true].map((long) =>
  cloudinary.url(publicId, { ...where, cname, long_url_signature: long }))));
