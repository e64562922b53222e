// What the Node peers share: a signature that works once, as somebody would write it by hand, and fsync.
const crypto = require('node:crypto'), fs = require('node:fs/promises'), path = require('node:path');
const Database = require('better-sqlite3');

const { PORT, DATA } = process.env;
const DURABLE = Boolean(process.env.DURABLE);

const db = new Database(path.join(DATA, 'used.db'), { timeout: 10000 });
db.pragma('journal_mode = WAL');
db.pragma(`synchronous = ${DURABLE ? 'FULL' : 'NORMAL'}`);
db.exec('CREATE TABLE IF NOT EXISTS used (signature TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID');
const insert = db.prepare('INSERT OR IGNORE INTO used VALUES (?, ?)');

// Fields → HTTP status; 200 means that the signature is spent now.
function spend({ nonce, timestamp, signature }) {
  const expected = crypto.createHmac('sha256', 'bench').update(`nonce=${nonce}&timestamp=${timestamp}`).digest();
  const given = Buffer.from(signature || '', 'hex');
  if (given.length !== expected.length || !crypto.timingSafeEqual(expected, given)) return 401;
  return insert.run(signature, Date.now()).changes === 1 ? 200 : 409;
}

async function sync(name) {
  const handle = await fs.open(name);
  try { await handle.sync(); } finally { await handle.close(); }
}

// The file and the folder that names it.
async function settle(name) {
  if (!DURABLE) return;
  await sync(name);
  await sync(path.dirname(name));
}

const fresh = () => path.join(DATA, `${crypto.randomUUID()}.jpg`);

module.exports = { PORT, DATA, spend, settle, fresh };
