/* cancel MODEL PICTURE...: a request can be cancelled wherever it is, ends once, and gives back all that it held. */
#include "check.h"
#include <pthread.h>

enum { LONG = 2000 };

/* Token ids that no cache has seen. */
static pyrex_prompt_t *long_prompt(void) {
  static uint32_t token_ids[LONG];
  for (uint32_t i = 0; i < LONG; i++) token_ids[i] = 100 + i * 7 % 1000;
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_from_ids(token_ids, LONG, &prompt));
  return prompt;
}

static void wait_for(pyrex_request_t *request, int32_t kind) {
  const pyrex_event_t *event;
  do {
    OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  } while (event->kind != kind);
}

/* Cancels, reads the end, and frees. */
static void cancel(pyrex_engine_t *engine, pyrex_request_t *request) {
  OK(pyrex_request_cancel(request));
  check_cancelled(request);
  pyrex_request_free(request);
  check_empty(engine);
}

static void in_the_queue(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *running = submit(engine, prompt, LONG);
  wait_for(running, PYREX_EVENT_TOKEN);
  pyrex_request_t *prepared = submit(engine, prompt, LONG);
  pyrex_request_t *waiting = submit(engine, prompt, LONG);
  CHECK(stats_of(engine).num_waiting == 2);
  OK(pyrex_request_cancel(waiting));
  check_cancelled(waiting);
  OK(pyrex_request_cancel(prepared));
  check_cancelled(prepared);
  /* The one that runs is not touched. */
  wait_for(running, PYREX_EVENT_TOKEN);
  pyrex_request_free(waiting);
  pyrex_request_free(prepared);
  cancel(engine, running);
}

static void in_the_vision_tower(pyrex_engine_t *engine, int num_pictures, char **pictures) {
  pyrex_prompt_t *prompt = ask("Describe these images.");
  for (int i = 0; i < num_pictures; i++) OK(pyrex_prompt_add_image_file(prompt, pictures[i]));
  pyrex_request_t *request = submit(engine, prompt, 1);
  wait_for(request, PYREX_EVENT_STARTED);
  WAIT_UNTIL(stats_of(engine).running_step_ms > 0);
  cancel(engine, request);
  /* It was given up half way. */
  CHECK(stats_of(engine).image_hits == 0);
  pyrex_prompt_free(prompt);
}

static void in_a_long_prompt(pyrex_engine_t *engine) {
  pyrex_prompt_t *prompt = long_prompt();
  uint64_t computed_tokens = stats_of(engine).computed_tokens;
  pyrex_request_t *request = submit(engine, prompt, 1);
  WAIT_UNTIL(stats_of(engine).computed_tokens > computed_tokens);
  cancel(engine, request);
  CHECK(stats_of(engine).computed_tokens < computed_tokens + LONG);
  pyrex_prompt_free(prompt);
}

static void in_the_answer(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *request = submit(engine, prompt, LONG);
  wait_for(request, PYREX_EVENT_TOKEN);
  cancel(engine, request);
}

static void at_once_and_twice(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *request = submit(engine, prompt, LONG);
  OK(pyrex_request_cancel(request));
  cancel(engine, request);
}

/* Waits for the end of a request, on another thread. */
static void *read_to_the_end(void *request) {
  const pyrex_event_t *event;
  pyrex_status_t status;
  int32_t ended_with = PYREX_OK;
  /* Busy where the other thread looks at the same moment. */
  while ((status = pyrex_request_next(request, PYREX_FOREVER, &event)) == PYREX_OK || status == PYREX_BUSY) {
    if (status == PYREX_OK) ended_with = event->status;
  }
  CHECK_STATUS(PYREX_ENDED, status);
  CHECK_STATUS(PYREX_CANCELLED, ended_with);
  return NULL;
}

static void while_another_thread_waits(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *running = submit(engine, prompt, LONG);
  wait_for(running, PYREX_EVENT_TOKEN);
  pyrex_request_t *waiting = submit(engine, prompt, LONG);
  pthread_t reader;
  CHECK(pthread_create(&reader, NULL, read_to_the_end, waiting) == 0);
  const pyrex_event_t *event;
  WAIT_UNTIL(pyrex_request_try_next(waiting, &event) == PYREX_BUSY);
  OK(pyrex_request_cancel(waiting));
  CHECK(pthread_join(reader, NULL) == 0);
  pyrex_request_free(waiting);
  cancel(engine, running);
}

static void after_the_end(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *request = submit(engine, prompt, 2);
  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FINISHED && answer.num_tokens == 2);
  const pyrex_event_t *event;
  OK(pyrex_request_cancel(request));
  CHECK_STATUS(PYREX_ENDED, pyrex_request_next(request, PYREX_FOREVER, &event));
  pyrex_request_free(request);

  /* Its end is there, but nobody has read it. */
  request = submit(engine, prompt, 2);
  check_empty(engine);
  OK(pyrex_request_cancel(request));
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
}

int main(int argc, char **argv) {
  argument(argc, argv, 2, "pictures");
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_sequences = 1;
  options.max_batch_tokens = 32;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(argument(argc, argv, 1, "the folder of a model"), &options, &engine));
  pyrex_prompt_t *prompt = ask("Describe this image.");

  in_the_queue(engine, prompt);
  in_the_vision_tower(engine, argc - 2, argv + 2);
  in_a_long_prompt(engine);
  in_the_answer(engine, prompt);
  at_once_and_twice(engine, prompt);
  while_another_thread_waits(engine, prompt);
  after_the_end(engine, prompt);

  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
  return 0;
}
