const fs = require('fs');
const { promisify } = require('util');
const { Client } = require('ssh2');

const { HERE, PORT, NAME, KEY, REMOTE } = process.env;
const client = new Client();

async function place(files) {
  const call = name => promisify(files[name]).bind(files);
  await call('fastPut')(`${HERE}/file`, 'place/kept');
  await call('fastPut')(`${HERE}/file`, 'place/first');
  await call('rename')('place/first', 'place/second name');
  for (const entry of await call('readdir')('place')) console.log(entry.longname);
  await call('fastGet')('place/second name', `${HERE}/back`);
  await call('unlink')('place/second name');
  await call('symlink')('kept', 'place/link');
  if (fs.readlinkSync(`${REMOTE}/link`) !== 'kept') throw new Error('a link the wrong way round');
  await call('unlink')('place/link');
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

client.on('error', fail);
client.on('ready', () => client.sftp((error, files) => {
  if (error) return fail(error);
  return place(files).then(() => client.end(), fail);
}));
client.connect({ host: '127.0.0.1', port: +PORT, username: NAME, privateKey: fs.readFileSync(KEY) });
