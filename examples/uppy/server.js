// The back end signs and serves the page. Files never pass through it.
const { randomUUID } = require("node:crypto");
const express = require("express");
const cloudinary = require("cloudinary").v2; // reads CLOUDINARY_URL

const { cloud_name, api_key, api_secret, upload_prefix } = cloudinary.config();
if (!upload_prefix) throw new Error("Set CLOUDINARY_URL to the line of the key 'browser', which uponce printed.");

const app = express();

app.post("/sign", (request, response) => {
  // Check the login of your users here. To a user that may not upload, answer:
  // return response.status(403).json({ error: { code: "scope_denied", message: "Please sign in." } });
  const params = {
    timestamp: Math.round(Date.now() / 1000),
    nonce: randomUUID(), // two files of one second get two signatures
    folder: "photos",
    allowed_formats: "jpg,png,gif,webp,mp4",
    max_bytes: 20_000_000,
  };
  const signature = cloudinary.utils.api_sign_request(params, api_secret);
  response.set("Cache-Control", "no-store");
  response.json({ url: `${upload_prefix}/v1_1/${cloud_name}/auto/upload`, fields: { ...params, signature, api_key } });
});

app.use(express.static("public"));
app.use("/uppy", express.static("node_modules/uppy/dist"));

const port = process.env.PORT ?? 3000;
app.listen(port, "127.0.0.1", () => console.log(`Open http://localhost:${port}`));
