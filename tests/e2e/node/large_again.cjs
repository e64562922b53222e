// node large_again.cjs PACKAGE FILE OPTIONS, with CLOUDINARY_URL set: upload_large until it is answered. Prints what each call said.
const [, , name, path, options] = process.argv;
const { uploader } = require(name).v2;

const calls = [];
function call() {
  uploader.upload_large(path, JSON.parse(options), (error, answer) => {
    calls.push(error ? { error: error.message ?? error.code } : answer);
    if (error && calls.length < 20) return setTimeout(call, 1100);
    console.log(JSON.stringify(calls));
    process.exit();
  });
}

call();
