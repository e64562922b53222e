// Upload a file and read what the Admin API says of it, with the SDK.
// node reads.cjs PACKAGE FILE, with CLOUDINARY_URL set. Prints each answer or error.
const [, , name, path] = process.argv;
const { api, uploader } = require(name).v2;

const settled = (promise) => promise.catch((reason) => reason.error ?? reason);

async function main() {
  const uploaded = await uploader.upload(path, { public_id: `reads/ünï = ${name}`, context: { from: name } });
  console.log(
    JSON.stringify({
      uploaded,
      ping: await settled(api.ping()),
      found: await settled(api.resource(uploaded.public_id, { media_metadata: true })),
      listed: await settled(api.resources_by_context("from", name, { max_results: 5, context: true })),
      presets: await settled(api.upload_presets()),
      missing: await settled(api.resource("no/such")),
      preset: await settled(api.upload_preset("p")),
    }),
  );
}

main();
