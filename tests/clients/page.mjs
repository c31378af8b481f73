// The pages in a browser without a screen, against a running server. What is seen is kept in target/clients.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, afterEach, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { ANSWER, ROOT, metric, slowed, start } from './server.mjs';

const SEEN = ROOT + 'target/clients/';
const QUESTION = 'Describe this image.';
const red = readFileSync(ROOT + 'models/shapes/examples/red_circle.png');
const DESK = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };

const visits = [];
let browser, server;

before(async () => {
  mkdirSync(SEEN, { recursive: true });
  const args = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  server = await start();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

// No page may fail, reach another origin or be held by its policy, whatever a test does with it.
afterEach(async () => {
  const seen = visits.splice(0);
  for (const { context } of seen) await context.close();
  assert.deepEqual(
    seen.flatMap(({ wrong }) => wrong),
    [],
  );
});

/** A page that answers greedily, unless told to take other settings. */
async function visit({
  path = '/',
  viewport = DESK,
  settings = { temperature: '0' },
  base = server.url,
  ...more
} = {}) {
  const context = await browser.newContext({ viewport, ...more });
  const page = await context.newPage();
  const wrong = [];
  page.setDefaultTimeout(60_000);
  visits.push({ context, wrong });
  page.on('pageerror', (error) => wrong.push('error: ' + error.message));
  page.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) wrong.push(message.text());
  });
  page.on('request', (request) => {
    if (!/^data:|^blob:/.test(request.url()) && new URL(request.url()).origin !== base)
      wrong.push('went to ' + request.url());
  });
  await page.addInitScript(
    (settings) => sessionStorage.setItem('pyrex.settings', settings),
    JSON.stringify(settings),
  );
  await page.goto(base + path);
  return page;
}

const met = (page) => page.waitForFunction(() => document.querySelector('#model').textContent === 'shapes');
const isIdle = (page) => page.waitForSelector('#go[aria-label=Send]', { state: 'attached' });
const answers = (page) => page.locator('.answer .text').allInnerTexts();
const shot = (page, name) => page.screenshot({ path: SEEN + name + '.png', animations: 'disabled' });

async function ask(page, text) {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
}

/** Lets files arrive the way a person brings them: by `drop`, or by `paste`. */
async function bring(page, how, files) {
  const given = files.map(({ name, type = 'image/png', data = red, size = 0 }) => ({
    name,
    type,
    size,
    data: data.toString('base64'),
  }));
  await page.evaluate(
    ({ how, given }) => {
      const transfer = new DataTransfer();
      for (const { name, type, data, size } of given) {
        const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
        transfer.items.add(new File([bytes, new Uint8Array(size)], name, { type }));
      }
      const event =
        how === 'paste'
          ? new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true })
          : new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector('#text').dispatchEvent(event);
    },
    { how, given },
  );
}

/** Makes the next answers long, so that there is a middle: they go on past their end. */
async function lengthen(page) {
  await page.route('**/v1/chat/completions', (route) => {
    route.continue({
      postData: JSON.stringify({ ...route.request().postDataJSON(), ignore_eos: true, max_tokens: 3500 }),
    });
  });
}

const event = (data) => 'data: ' + JSON.stringify(data) + '\n\n';
const delta = (delta) => event({ choices: [{ index: 0, delta, finish_reason: null }] });

/** Lets the page hear what no model of ours says. */
async function pretend(page, ...deltas) {
  const body = deltas.map(delta).join('') + 'data: [DONE]\n\n';
  await page.route('**/v1/chat/completions', (route) => route.fulfill({ contentType: 'text/event-stream', body }));
}

async function holdsWidth(page, width) {
  const { scrollWidth, innerWidth } = await page.evaluate(() => ({
    scrollWidth: document.documentElement.scrollWidth,
    innerWidth,
  }));
  assert.equal(innerWidth, width);
  assert.ok(scrollWidth <= width, `scrolls sideways: ${scrollWidth} of ${width}`);
}

test('a dropped picture is described word by word', async () => {
  // So small a model says all of it between two frames.
  const slow = await slowed(server.url, 40);
  const page = await visit({ base: slow.url });
  await met(page);
  await shot(page, 'welcome');
  await page.evaluate(() => {
    window.texts = new Set();
    new MutationObserver(() => texts.add(document.querySelector('.answer .text')?.textContent ?? '')).observe(
      document.querySelector('#log'),
      { subtree: true, childList: true, characterData: true },
    );
  });
  await bring(page, 'drop', [{ name: 'red_circle.png' }]);
  await page.waitForSelector('.picture img[alt="red_circle.png"]');
  await page.fill('#text', QUESTION);
  await shot(page, 'composer');
  await page.press('#text', 'Enter');
  await isIdle(page);
  assert.deepEqual(await answers(page), [ANSWER]);
  const before = (await page.evaluate(() => [...texts])).filter((text) => text && text !== ANSWER);
  assert.ok(before.length > 1, 'it came at once');
  assert.ok(
    before.every((text) => ANSWER.startsWith(text)),
    before.join('\n'),
  );
  assert.match(await page.locator('.figures').innerText(), /^\d+ tokens · .+ to the first · [\d.]+ tokens\/s$/);
  assert.equal(await page.locator('#status').textContent(), ANSWER);
  await shot(page, 'answer');
  slow.close();
});

test('the sample on the first page is a picture the model knows', async () => {
  const page = await visit();
  await met(page);
  await page.click('#sample');
  await isIdle(page);
  assert.deepEqual(await answers(page), [ANSWER]);
});

test('stop in the middle keeps what was said and frees the server', async () => {
  const page = await visit();
  await met(page);
  await lengthen(page);
  const before = await metric(server.url, 'pyrex_generation_tokens_total');
  await ask(page, 'Who are you?');
  // Here and now: the model says all of it in seconds.
  await page.waitForFunction(() => {
    const begun = document.querySelector('.answer .text').textContent.length > 20;
    if (begun) document.querySelector('#go').click();
    return begun;
  });
  await isIdle(page);
  assert.equal(await page.locator('.answer .note').innerText(), 'stopped');
  assert.ok((await answers(page))[0].length > 20);
  await page.unroute('**/v1/chat/completions');
  await ask(page, 'Who are you?');
  await isIdle(page);
  assert.equal((await answers(page)).length, 2);
  assert.equal(await metric(server.url, 'pyrex_requests_running'), 0);
  assert.ok((await metric(server.url, 'pyrex_generation_tokens_total')) - before < 3500);
});

test('a server that dies in the middle is told of, and the answer comes once it is back', async () => {
  const page = await visit();
  await met(page);
  await lengthen(page);
  await ask(page, 'Who are you?');
  await page.waitForFunction(() => document.querySelector('.answer .text').textContent.length > 20);
  await server.kill();
  await page.getByText('The connection broke before the answer was whole').waitFor();
  await page.unroute('**/v1/chat/completions');
  await page.getByRole('button', { name: 'Retry' }).click();
  await page.getByText('The server does not answer').waitFor();
  assert.equal(await page.locator('#dot').getAttribute('aria-label'), 'no connection');
  await shot(page, 'gone');
  server = await start([], new URL(server.url).port);
  await page.getByText('It is back.').waitFor();
  await page.getByRole('button', { name: 'Retry' }).click();
  await isIdle(page);
  assert.equal(await page.locator('.card').count(), 0);
  assert.equal((await answers(page)).length, 1);
  assert.equal(await page.locator('#dot').getAttribute('aria-label'), 'connected');
});

test('a key is asked for, and a wrong one is told', async () => {
  const keyed = await start(['--config', SEEN + 'keyed.toml']);
  try {
    const page = await visit({ base: keyed.url });
    await page.getByText('The server asks for an API key').waitFor();
    await shot(page, 'key');
    await page.fill('#banner input', 'wrong');
    await page.press('#banner input', 'Enter');
    await page.getByText('The key you gave was not taken').waitFor();
    await page.fill('#banner input', 'alice-0123456789abcdef');
    await page.press('#banner input', 'Enter');
    await met(page);
    await ask(page, 'Who are you?');
    await isIdle(page);
    assert.equal(await page.locator('.card').count(), 0);
    assert.deepEqual(
      await page.evaluate(() => [
        sessionStorage.getItem('pyrex.key'),
        JSON.stringify(localStorage).includes('0123456789'),
      ]),
      ['alice-0123456789abcdef', false],
    );
  } finally {
    await keyed.kill();
  }
});

test('a refusal says its status, its words and when to come again', async () => {
  const page = await visit();
  await met(page);
  const error = {
    message: 'the tenant guest may ask 4 times a minute',
    type: 'rate_limit_error',
    param: null,
    code: null,
  };
  await page.route('**/v1/chat/completions', (route) =>
    route.fulfill({ status: 429, headers: { 'Retry-After': '1' }, json: { error } }),
  );
  await ask(page, 'Who are you?');
  const card = page.locator('.card');
  assert.match(
    await card.innerText(),
    /^429\s+Too many requests\s+the tenant guest may ask 4 times a minute\s+Retry in 1 s$/,
  );
  await shot(page, 'refused');
  await page.unroute('**/v1/chat/completions');
  await page.getByRole('button', { name: 'Retry', exact: true }).click();
  await isIdle(page);
  assert.equal((await answers(page)).filter(Boolean).length, 1);
});

test('a setting that the server refuses is named', async () => {
  const page = await visit();
  await met(page);
  await page.route('**/v1/chat/completions', (route) =>
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), temperature: -1 }) }),
  );
  await ask(page, 'Who are you?');
  assert.match(await page.locator('.card').innerText(), /^400\s+The server refused this request\s+[^]*temperature/);
});

test('a setting out of range is told before anything is sent', async () => {
  const page = await visit({ settings: { temperature: '9' } });
  await met(page);
  await ask(page, 'Who are you?');
  assert.ok(await page.locator('#settings').isVisible());
  assert.ok(
    await page.locator('#temperature').evaluate((field) => field === document.activeElement && !field.validity.valid),
  );
  assert.equal(await page.locator('.turn').count(), 0);
});

test('what a model says is text, whatever it says', async () => {
  const page = await visit();
  await met(page);
  const hostile =
    '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script> [here](javascript:alert(1)) **<b>bold</b>**';
  await pretend(page, { content: hostile.slice(0, 30) }, { content: hostile.slice(30) });
  await ask(page, hostile);
  await isIdle(page);
  const text = page.locator('.answer .text');
  assert.equal(await text.innerText(), hostile.replaceAll('**', ''));
  assert.equal(await text.locator('img, script, a, b').count(), 0);
  assert.equal(await page.locator('.question .text').innerText(), hostile);
  assert.equal(await page.title(), 'shapes · Pyrex');
});

const MARKDOWN =
  '# Heads\n\nA *little* `code`:\n\n1. one\n2. two\n   - inner\n\n```rust\nlet a = "**b**";\n```\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nthe end of 2 * 3 * 4';

test('a little Markdown is drawn, and copied as it was said', async () => {
  const page = await visit({ permissions: ['clipboard-read', 'clipboard-write'] });
  await met(page);
  await pretend(page, ...MARKDOWN.split(/(?<= )/).map((content) => ({ content })));
  await ask(page, 'Show me.');
  await isIdle(page);
  const drawn = await page
    .locator('.answer .text')
    .evaluate((text) => [...text.children].map((node) => node.localName + (node.className && '.' + node.className)));
  assert.deepEqual(drawn, ['h3', 'p', 'ol', 'div.code', 'blockquote', 'div.table', 'p']);
  assert.equal(await page.locator('.answer pre').innerText(), 'let a = "**b**";');
  assert.equal(await page.locator('.answer ol > li > ul > li').innerText(), 'inner');
  assert.equal(await page.locator('.answer .text > p').last().innerText(), 'the end of 2 * 3 * 4');
  await page.locator('.meta').getByRole('button', { name: 'Copy' }).click();
  await page.getByText('Copied').first().waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), MARKDOWN);
  await shot(page, 'markdown');
});

test('reasoning is folded away', async () => {
  const page = await visit();
  await met(page);
  await pretend(
    page,
    { reasoning_content: 'A circle ' },
    { reasoning_content: 'has no corners.' },
    { content: 'None.' },
  );
  await ask(page, 'How many corners?');
  await isIdle(page);
  assert.deepEqual(await answers(page), ['None.']);
  const thought = page.locator('.thought');
  assert.equal(await thought.getAttribute('open'), null);
  await thought.locator('summary').click();
  assert.equal(await thought.locator('div').innerText(), 'A circle has no corners.');
});

test('a stream is read wherever the network cuts it', async () => {
  const page = await visit();
  const told = await page.evaluate(async () => {
    const bytes = new TextEncoder().encode(
      ': hello\r\n\r\ndata: {"a":\r\ndata: "é😀"}\r\n\r\nevent: x\ndata:two\n\ndata: three\r\r\ndata: unfinished',
    );
    const read = async (size) => {
      const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, idx) =>
        bytes.slice(idx * size, (idx + 1) * size),
      );
      const stream = new ReadableStream({
        start(controller) {
          pieces.forEach((piece) => controller.enqueue(piece));
          controller.close();
        },
      });
      const events = [];
      for await (const event of eventsOf(stream)) events.push(event);
      return events;
    };
    return Promise.all([1, 2, 3, 5, 7, 1000].map(read));
  });
  for (const events of told) assert.deepEqual(events, ['{"a":\n"é😀"}', 'two', 'three']);
});

test('an error in the middle of a stream is told', async () => {
  const page = await visit();
  await met(page);
  const body =
    delta({ content: 'So far' }) + event({ error: { message: 'the engine panicked', type: 'server_error' } });
  await page.route('**/v1/chat/completions', (route) => route.fulfill({ contentType: 'text/event-stream', body }));
  await ask(page, 'Who are you?');
  assert.match(await page.locator('.card').innerText(), /in the middle of the answer\s+the engine panicked/);
  assert.deepEqual(await answers(page), ['So far']);
});

test('files that are no pictures, empty, too large or too many are told', async () => {
  const page = await visit();
  await met(page);
  await bring(page, 'drop', [
    { name: 'notes.txt', type: 'text/plain' },
    { name: 'empty.png', data: Buffer.alloc(0) },
    { name: 'vast.png', size: 21 * 2 ** 20 },
    { name: 'good.png' },
  ]);
  await page.waitForSelector('.picture');
  const told = await page.locator('#notice li').allInnerTexts();
  assert.deepEqual(
    told.map((line) => line.split(' ')[0]),
    ['notes.txt', 'empty.png', 'vast.png'],
  );
  assert.equal(await page.locator('.picture').count(), 1);
  await shot(page, 'told');
  await bring(
    page,
    'drop',
    Array.from({ length: 17 }, (_, idx) => ({ name: idx + '.png' })),
  );
  await page.waitForFunction(() => document.querySelectorAll('.picture').length === 16);
  assert.equal(await page.locator('#notice li').count(), 2);
  await page.getByRole('button', { name: 'Remove good.png' }).click();
  assert.equal(await page.locator('.picture').count(), 15);
  await page.getByRole('button', { name: 'Dismiss' }).click();
  assert.ok(await page.locator('#notice').isHidden());
});

test('pictures come by paste and by the button too, and all are sent before the words', async () => {
  const page = await visit();
  await met(page);
  await bring(page, 'paste', [{ name: 'pasted.png' }]);
  await page.waitForSelector('.picture');
  await page.setInputFiles('#file', ROOT + 'models/shapes/examples/pink_cross.png');
  await page.waitForFunction(() => document.querySelectorAll('.picture').length === 2);
  const sent = page.waitForRequest('**/v1/chat/completions');
  await ask(page, QUESTION);
  const { messages } = (await sent).postDataJSON();
  assert.deepEqual(
    messages[0].content.map(({ type }) => type),
    ['image_url', 'image_url', 'text'],
  );
  assert.equal(messages[0].content[0].image_url.url, 'data:image/png;base64,' + red.toString('base64'));
  await isIdle(page);
});

test('a conversation goes on, its last question is edited, its last answer asked again', async () => {
  const page = await visit({
    settings: { temperature: '0', system: 'Be brief.', seed: '7', max_tokens: '40', top_p: '0.9' },
  });
  await met(page);
  const bodies = [];
  page.on('request', (request) => {
    if (request.url().endsWith('completions')) bodies.push(request.postDataJSON());
  });
  for (const text of ['Who are you?', 'Who made you?']) {
    await ask(page, text);
    await isIdle(page);
  }
  const [first, second] = await answers(page);
  const turns = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Who are you?' },
    { role: 'assistant', content: first },
    { role: 'user', content: 'Who made you?' },
  ];
  assert.deepEqual(bodies[1], {
    stream: true,
    stream_options: { include_usage: true },
    model: 'shapes',
    messages: turns,
    temperature: 0,
    top_p: 0.9,
    max_tokens: 40,
    seed: 7,
  });
  await page.getByRole('button', { name: 'Retry' }).click();
  await isIdle(page);
  assert.deepEqual(bodies[2], bodies[1]);
  assert.deepEqual(await answers(page), [first, second]);
  await page.getByRole('button', { name: 'Edit your last message' }).click();
  assert.equal(await page.inputValue('#text'), 'Who made you?');
  await ask(page, 'What can you do?');
  await isIdle(page);
  assert.equal(await page.locator('.turn').count(), 4);
  assert.deepEqual(bodies[3].messages.slice(0, 3), turns.slice(0, 3));
  await page.getByRole('button', { name: 'New chat' }).click();
  assert.equal(await page.locator('.turn').count(), 0);
  assert.ok(await page.locator('#welcome').isVisible());
});

test('the keyboard alone is enough', async () => {
  const slow = await slowed(server.url, 40);
  const page = await visit({ base: slow.url });
  await met(page);
  const focused = () => page.evaluate(() => document.activeElement.id);
  assert.equal(await focused(), 'text');
  await page.keyboard.type('Who are');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('you?');
  assert.equal(await page.inputValue('#text'), 'Who are\nyou?');
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'go');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Shift+Tab');
  assert.equal(await focused(), 'attach');
  await page.keyboard.press('Tab');
  await lengthen(page);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer .text').textContent.length > 5);
  await page.keyboard.type('more');
  await page.keyboard.press('Enter');
  await page.getByText('An answer is being written').waitFor();
  await shot(page, 'streaming');
  await page.keyboard.press('Escape');
  await isIdle(page);
  assert.equal(await page.locator('.answer .note').innerText(), 'stopped');
  await page.focus('#open');
  await page.keyboard.press('Enter');
  await page.locator('#settings').waitFor();
  await page.keyboard.press('Escape');
  assert.ok(await page.locator('#settings').isHidden());
  assert.equal(await focused(), 'open');
  const names = await page
    .locator('button:visible, input:visible, textarea:visible, select:visible, a:visible')
    .evaluateAll((nodes) =>
      nodes
        .filter((node) => !(node.ariaLabel || node.title || node.labels?.length || node.textContent.trim()))
        .map((node) => node.outerHTML),
    );
  assert.deepEqual(names, []);
  slow.close();
});

test('dark and light follow the system until somebody chooses', async () => {
  const page = await visit({ colorScheme: 'dark' });
  await met(page);
  const dark = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor === 'rgb(18, 21, 23)');
  assert.ok(await dark());
  await page.click('#sample');
  await isIdle(page);
  await page.click('#open');
  await shot(page, 'dark');
  await page.emulateMedia({ colorScheme: 'light' });
  assert.ok(!(await dark()));
  await page.click('#theme');
  await page.click('#theme');
  assert.ok(await dark());
  await page.reload();
  await met(page);
  assert.ok(await dark());
});

test('a phone shows all of it without scrolling sideways', async () => {
  const page = await visit({ viewport: PHONE, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await met(page);
  await shot(page, 'phone-welcome');
  await holdsWidth(page, 390);
  await bring(page, 'drop', [{ name: 'red_circle.png' }, { name: 'notes.txt', type: 'text/plain' }]);
  await page.waitForSelector('.picture');
  await page.fill('#text', QUESTION);
  await shot(page, 'phone-composer');
  await page.tap('#go');
  await isIdle(page);
  await pretend(page, { content: MARKDOWN + '\n' + 'w'.repeat(300) });
  await page.fill('#text', 'Show me ' + 'a'.repeat(200));
  await page.tap('#go');
  await isIdle(page);
  await shot(page, 'phone');
  await holdsWidth(page, 390);
  await page.tap('#open');
  await page.locator('#settings').waitFor();
  await shot(page, 'phone-settings');
  await holdsWidth(page, 390);
  await page.tap('#close');
  assert.ok(await page.locator('#settings').isHidden());
});

test('nothing moves for whoever wants that', async () => {
  const page = await visit({ reducedMotion: 'reduce' });
  await met(page);
  await ask(page, 'Who are you?');
  await isIdle(page);
  assert.equal(await page.locator('.answer').evaluate((node) => getComputedStyle(node).animationName), 'none');
});

test('the API page shows every operation of the document, and tries one', async () => {
  const { paths } = await (await fetch(server.url + '/openapi.json')).json();
  const num_operations = Object.values(paths).flatMap((item) =>
    Object.keys(item).filter((verb) => ['get', 'post', 'put', 'patch', 'delete'].includes(verb)),
  ).length;
  const page = await visit({ path: '/docs' });
  await page.locator('section').first().waitFor();
  assert.equal(await page.locator('section').count(), num_operations);
  await shot(page, 'docs');
  const chat = page.locator('#post-v1-chat-completions');
  const summary = chat.locator('.fields summary').first();
  await summary.click();
  assert.ok(await chat.locator('.fields .fields').first().isVisible());
  const models = page.locator('#get-v1-models');
  await models.getByRole('button', { name: 'Send' }).click();
  await models.getByText(/^200 OK/).waitFor();
  assert.match(await models.locator('pre').innerText(), /"id": "shapes"/);
  await chat.getByRole('button', { name: 'Send' }).click();
  await chat.getByText(/^200 OK/).waitFor();
  await chat.scrollIntoViewIfNeeded();
  await shot(page, 'docs-tried');
});

test('the API page holds on a phone and in the dark', async () => {
  const page = await visit({ path: '/docs', viewport: PHONE, colorScheme: 'dark' });
  await page.locator('section').first().waitFor();
  await holdsWidth(page, 390);
  await shot(page, 'docs-phone');
});
