// The fastest that a user would write by hand: node:http and busboy. POST /upload, the fields before the file.
const http = require('node:http'), fs = require('node:fs'), path = require('node:path');
const { pipeline } = require('node:stream/promises');
const busboy = require('busboy');
const { PORT, spend, settle, fresh } = require('./once.js');

http.createServer((request, response) => {
  const answer = (status, body) => {
    const text = JSON.stringify(body);
    response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': text.length });
    response.end(text);
  };
  const parser = busboy({ headers: request.headers });
  const fields = {}, stored = [];
  let status = 200;
  parser.on('field', (name, value) => { fields[name] = value; });
  parser.on('file', (_, stream) => {
    status = spend(fields);
    if (status !== 200) return stream.resume();
    const name = fresh();
    stored.push(pipeline(stream, fs.createWriteStream(name)).then(() => settle(name)));
  });
  parser.on('close', () => Promise.all(stored).then(() => answer(status, {}), (error) => answer(500, { error })));
  request.pipe(parser);
}).listen(+PORT, '127.0.0.1');
