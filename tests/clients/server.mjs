// Starts servers of the program under test, and ends them.

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const ANSWER = 'This is a simple image of a solid red circle on a white background.';
const PYREX = process.env.PYREX_BIN ?? ROOT + 'target/release/pyrex';

/** A server, once it listens: on a free port unless one is given. `kill` resolves when its process is gone. */
export function start(arguments_ = [], port = 0) {
  const child = spawn(PYREX, ['serve', '--port', String(port), ...arguments_], { stdio: ['ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  process.once('exit', () => child.kill('SIGKILL'));
  let errors = '';
  child.stderr.on('data', (data) => {
    errors += data;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', () => reject(new Error('the server ended: ' + errors)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const url = /^listening on (.+)$/.exec(line)?.[1];
      if (url)
        resolve({
          url,
          kill: () => {
            child.kill('SIGKILL');
            return gone;
          },
        });
    });
  });
}

/** The same server behind a slow network: one event of a stream at a time. */
export async function slowed(url, pauseMs) {
  const proxy = createServer(async (request, response) => {
    const method = request.method;
    const body = method === 'POST' ? request : undefined;
    const answer = await fetch(url + request.url, {
      method,
      body,
      duplex: 'half',
      headers: { 'Content-Type': 'application/json' },
    });
    const headers = new Headers(answer.headers);
    for (const name of ['content-length', 'content-encoding', 'transfer-encoding', 'connection'])
      headers.delete(name);
    response.writeHead(answer.status, Object.fromEntries(headers));
    for (const event of (await answer.text()).split(/(?<=\n\n)/)) {
      if (response.destroyed) return;
      response.write(event);
      if (event.startsWith('data: ')) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    response.end();
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return { url: 'http://127.0.0.1:' + proxy.address().port, close: () => proxy.close() };
}

/** The sum of a metric over its labels. */
export async function metric(url, name) {
  const text = await (await fetch(url + '/metrics')).text();
  const values = text.split('\n').filter((line) => line.startsWith(name + ' ') || line.startsWith(name + '{'));
  if (!values.length) throw new Error('no ' + name + ' in the metrics');
  return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
