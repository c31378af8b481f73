// Starts the servers that clients ask, lets every client ask them, and fails if one of them does: scripts/test-clients.sh.
// The names of clients may be given; without any, all of them run, one after another.

import { spawn } from 'node:child_process';
import { ROOT, start } from './server.mjs';

const OUT = ROOT + 'target/clients/';
const HERE = ROOT + 'tests/clients/';

/** What each client runs. One page and one server may be slow; no test takes minutes. */
const clients = (url) => ({
  curl: [HERE + 'curl.sh'],
  python: [OUT + 'venv/bin/python', '-m', 'pytest', '--quiet', '-p', 'no:cacheprovider', HERE + 'test_openai.py'],
  node: ['node', '--test', '--test-reporter=spec', '--test-timeout=60000', HERE + 'openai.mjs'],
  schemathesis: [OUT + 'venv/bin/st', '--config-file', HERE + 'schemathesis.toml', 'run', url + '/openapi.json'],
  page: ['node', '--test', '--test-reporter=spec', '--test-timeout=600000', HERE + 'page.mjs'],
});

function run(name, [program, ...arguments_], environment) {
  const started = performance.now();
  console.log('== ' + name);
  const child = spawn(program, arguments_, {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...environment, PYTHONDONTWRITEBYTECODE: '1' },
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => {
      console.log(
        '== ' +
          name +
          (code === 0 ? ' passed' : ' FAILED') +
          ' after ' +
          ((performance.now() - started) / 1000).toFixed(1) +
          ' s',
      );
      resolve(code === 0);
    });
  });
}

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
// What schemathesis sends is answered in words without end: there, an answer has few.
const arguments_ = [[], ['--config', OUT + 'keyed.toml'], ['--model', OUT + 'tools'], ['--max-model-len', '160']];
const servers = await Promise.all(arguments_.map((more) => start(more)));
const [plain, keyed, tools, short] = servers.map(({ url }) => url);
const environment = { PYREX_URL: plain, PYREX_KEYED_URL: keyed, PYREX_TOOLS_URL: tools };
const all = clients(short);
const wanted = process.argv.slice(2);
const failed = [];
for (const name of wanted.length ? wanted : Object.keys(all)) {
  if (!(await run(name, all[name] ?? ['no client is called ' + name], environment))) failed.push(name);
}
for (const { kill } of servers) await kill();
if (failed.length) console.error('failed: ' + failed.join(', '));
process.exitCode = failed.length ? 1 : 0;
