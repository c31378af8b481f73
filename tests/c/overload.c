/* overload MODEL: a queue that is full refuses, and takes again when there is room. */
#include "check.h"

int main(int argc, char **argv) {
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_sequences = 1;
  options.max_waiting = 1;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(argument(argc, argv, 1, "the folder of a model"), &options, &engine));
  pyrex_prompt_t *prompt = ask("Describe this image.");

  pyrex_request_t *running = submit(engine, prompt, 2000);
  const pyrex_event_t *event;
  do {
    OK(pyrex_request_next(running, PYREX_FOREVER, &event));
  } while (event->kind != PYREX_EVENT_TOKEN);
  pyrex_request_t *waiting = submit(engine, prompt, 1);
  pyrex_request_t *refused = running;
  REFUSED(PYREX_OVERLOADED, "max_waiting", pyrex_engine_submit(engine, prompt, NULL, &refused));
  CHECK(refused == NULL);
  refused = running;
  REFUSED(PYREX_OVERLOADED, "max_waiting",
          pyrex_engine_submit_json(engine, "{\"prompt\": \"a\"}", PYREX_NUL_TERMINATED, NULL, &refused));
  CHECK(refused == NULL);

  pyrex_request_free(running);
  CHECK(read_answer(waiting).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(waiting);
  pyrex_request_t *again = submit(engine, prompt, 1);
  CHECK(read_answer(again).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(again);

  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
