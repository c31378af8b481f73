// Starts servers of the program under test, and ends them.

import { spawn } from 'node:child_process';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const ANSWER = 'This is a simple image of a solid red circle on a white background.';
const PYREX = process.env.PYREX_BIN ?? ROOT + 'target/release/pyrex';

/** A port that nobody listens on. */
export function freePort() {
  return new Promise((found) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

/** A server that is ready for requests; `kill` resolves once its process is gone. */
export async function start(port, ...more) {
  const child = spawn(PYREX, ['serve', '--port', String(port), ...more], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data) => { said += data; });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const url = 'http://127.0.0.1:' + port;
  while (!(await fetch(url + '/health/ready').then((response) => response.ok, () => false))) {
    if (child.exitCode !== null) throw new Error('the server ended at once: ' + said);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { url, kill: (signal = 'SIGKILL') => { child.kill(signal); return gone; } };
}

/** The same server behind a slow network: one event of a stream at a time. */
export async function slowed(url, pauseMs) {
  const proxy = createHttpServer(async (request, response) => {
    const method = request.method, body = method === 'POST' ? request : undefined;
    const answer = await fetch(url + request.url, { method, body, duplex: 'half', headers: { 'Content-Type': 'application/json' } });
    const headers = new Headers(answer.headers);
    for (const name of ['content-length', 'content-encoding', 'transfer-encoding', 'connection']) headers.delete(name);
    response.writeHead(answer.status, Object.fromEntries(headers));
    for (const event of (await answer.text()).split(/(?<=\n\n)/)) {
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
