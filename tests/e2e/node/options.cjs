// Uploads with one set of options after another, and calls of the SDK by name.
// node options.cjs PACKAGE FILE PLAN, with CLOUDINARY_URL set; PLAN is the JSON of {uploads: [options], calls: [[where, name, …arguments]]}.
// Prints {uploads, calls}: null for each that worked, or its error.
const [, , name, path, plan] = process.argv;
const cloudinary = require(name).v2;
const { uploads, calls } = JSON.parse(plan);

const settled = (promise) => promise.then(() => null, (reason) => reason.error ?? reason);

async function main() {
  const told = { uploads: [], calls: [] };
  for (const options of uploads) told.uploads.push(await settled(cloudinary.uploader.upload(path, options)));
  for (const [where, method, ...rest] of calls) told.calls.push(await settled(cloudinary[where][method](...rest)));
  console.log(JSON.stringify(told));
}

main();
