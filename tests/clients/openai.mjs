// The official client for Node against a running server.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import OpenAI from 'openai';
import { ANSWER, ROOT, metric } from './server.mjs';

const URL = process.env.PYREX_URL;
const client = new OpenAI({ baseURL: URL + '/v1', apiKey: 'none', maxRetries: 0, timeout: 60_000 });
const url = 'data:image/png;base64,' + readFileSync(ROOT + 'models/shapes/examples/red_circle.png', 'base64');
const text = 'Describe this image.';
const describe = [
  {
    role: 'user',
    content: [
      { type: 'image_url', image_url: { url } },
      { type: 'text', text },
    ],
  },
];
const who = [{ role: 'user', content: 'Who are you?' }];
const chat = (messages, more = {}) =>
  client.chat.completions.create({ model: 'shapes', messages, temperature: 0, ...more });

test('a picture is described to the letter', async () => {
  const reply = await chat(describe);
  assert.equal(reply.choices[0].message.content, ANSWER);
  assert.equal(reply.choices[0].finish_reason, 'stop');
});

test('a stream adds up to the whole answer, with its usage at the end', async () => {
  const pieces = [];
  let usage;
  for await (const chunk of await chat(describe, { stream: true, stream_options: { include_usage: true } })) {
    if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
    usage = chunk.usage;
  }
  assert.equal(pieces.join(''), ANSWER);
  assert.ok(pieces.length > 5 && usage.completion_tokens > 5);
});

test('the stream helper gathers the final message', async () => {
  const stream = client.chat.completions.stream({ model: 'shapes', messages: describe, temperature: 0 });
  assert.equal(await stream.finalContent(), ANSWER);
});

test('an answer keeps to a JSON schema', async () => {
  const schema = {
    type: 'object',
    properties: { corners: { type: 'integer', minimum: 0, maximum: 9 } },
    required: ['corners'],
    additionalProperties: false,
  };
  const response_format = { type: 'json_schema', json_schema: { name: 'shape', strict: true, schema } };
  const reply = await client.chat.completions.parse({
    model: 'shapes',
    messages: describe,
    temperature: 0,
    max_tokens: 64,
    response_format,
  });
  assert.equal(typeof JSON.parse(reply.choices[0].message.content).corners, 'number');
});

test('a response is whole and streams', async () => {
  const input = [
    {
      role: 'user',
      content: [
        { type: 'input_image', image_url: url, detail: 'auto' },
        { type: 'input_text', text },
      ],
    },
  ];
  const reply = await client.responses.create({ model: 'shapes', input, temperature: 0 });
  assert.equal(reply.output_text, ANSWER);
  let streamed = '';
  for await (const event of await client.responses.create({ model: 'shapes', input, temperature: 0, stream: true })) {
    if (event.type === 'response.output_text.delta') streamed += event.delta;
  }
  assert.equal(streamed, ANSWER);
});

test('completions and models answer', async () => {
  const reply = await client.completions.create({ model: 'shapes', prompt: 'the', max_tokens: 4, temperature: 0 });
  assert.equal(reply.choices.length, 1);
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ['shapes']);
});

test('errors are of their classes and name the field', async () => {
  await assert.rejects(
    chat(who, { model: 'gpt-9' }),
    (error) => error instanceof OpenAI.NotFoundError && error.param === 'model',
  );
  await assert.rejects(
    chat(who, { temperature: 'hot' }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature',
  );
  await assert.rejects(client.embeddings.create({ model: 'shapes', input: 'a' }), OpenAI.NotFoundError);
});

test('a stream that is aborted is cancelled', async () => {
  const before = await metric(URL, 'pyrex_generation_tokens_total');
  const stream = await chat(who, { stream: true, max_tokens: 3000, ignore_eos: true });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  stream.controller.abort();
  assert.equal((await chat(who)).choices[0].finish_reason, 'stop');
  assert.ok((await metric(URL, 'pyrex_generation_tokens_total')) - before < 3000);
});
