// Express as its manual shows it: multer to disk at POST /upload, express.static for the files.
const fs = require('node:fs'), path = require('node:path');
const express = require('express'), multer = require('multer');
const { PORT, DATA, spend, settle, fresh } = require('./once.js');

const filename = (request, file, done) => done(null, path.basename(fresh()));
const upload = multer({ storage: multer.diskStorage({ destination: DATA, filename }) }).single('file');

const app = express();
app.disable('x-powered-by');
app.post('/upload', upload, async (request, response) => {
  const status = spend(request.body);
  if (status === 200) await settle(request.file.path);
  else fs.unlinkSync(request.file.path);
  response.status(status).json({ bytes: request.file.size });
});
app.use(express.static(DATA));
app.listen(+PORT, '127.0.0.1');
