/* deadline MODEL: an answer that comes too late fails, whether its request runs or waits. */
#include "check.h"

static pyrex_request_t *submit_within(pyrex_engine_t *engine, pyrex_prompt_t *prompt, uint64_t timeout_ms) {
  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = timeout_ms < 1000 ? 3000 : 2;
  options.ignore_eos = 1;
  options.timeout_ms = timeout_ms;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  return request;
}

static void check_late(pyrex_request_t *request) {
  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FAILED);
  CHECK_STATUS(PYREX_DEADLINE_EXCEEDED, answer.status);
  pyrex_request_free(request);
}

int main(int argc, char **argv) {
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_sequences = 1;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(argument(argc, argv, 1, "the folder of a model"), &options, &engine));
  pyrex_prompt_t *prompt = ask("Describe this image.");

  check_late(submit_within(engine, prompt, 1));
  check_late(submit_within(engine, prompt, 50));

  /* One that waits behind another is late on its own, and the other is not. */
  pyrex_request_t *running = submit(engine, prompt, 3000);
  check_late(submit_within(engine, prompt, 50));
  const pyrex_event_t *event;
  OK(pyrex_request_next(running, PYREX_FOREVER, &event));
  CHECK(event->kind == PYREX_EVENT_STARTED);
  pyrex_request_free(running);

  /* There is time enough for this one; the longest time is for ever. */
  uint64_t enough[] = {120000, UINT64_MAX};
  for (int i = 0; i < 2; i++) {
    pyrex_request_t *request = submit_within(engine, prompt, enough[i]);
    CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
    pyrex_request_free(request);
  }

  /* Waiting has a limit too, which is none of the request's. */
  pyrex_request_t *request = submit(engine, prompt, 2);
  pyrex_status_t status;
  while ((status = pyrex_request_next(request, 1, &event)) == PYREX_PENDING || status == PYREX_OK) {
  }
  CHECK_STATUS(PYREX_ENDED, status);
  REFUSED(PYREX_INVALID_REQUEST, "timeout_ms is -2", pyrex_request_next(request, -2, &event));
  CHECK_STATUS(PYREX_ENDED, pyrex_request_next(request, INT64_MAX, &event));
  pyrex_request_free(request);

  /* The engine's own test takes its time as well. */
  OK(pyrex_engine_probe(engine, 120000));
  CHECK_STATUS(PYREX_DEADLINE_EXCEEDED, pyrex_engine_probe(engine, 0));

  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
