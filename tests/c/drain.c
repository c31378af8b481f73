/* drain MODEL: an engine that drains answers what it has, takes no more, and closes. */
#include "check.h"

static void check_closed(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_request_t *request = (pyrex_request_t *)&request;
  CHECK_STATUS(PYREX_CLOSED, pyrex_engine_submit(engine, prompt, NULL, &request));
  CHECK(request == NULL);
  CHECK_STATUS(PYREX_CLOSED, pyrex_engine_submit_json(engine, "{\"prompt\": \"a\"}", PYREX_NUL_TERMINATED, NULL, &request));
  CHECK(request == NULL);
  CHECK_STATUS(PYREX_CLOSED, pyrex_engine_probe(engine, 1000));
  /* What needs no engine thread works still. */
  size_t num_tokens;
  OK(pyrex_engine_encode(engine, prompt, NULL, 0, &num_tokens, NULL));
  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  OK(pyrex_engine_info(engine, &info));
  uint64_t num_cut_off = 77;
  OK(pyrex_engine_drain(engine, 1000, &num_cut_off));
  CHECK(num_cut_off == 0);
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *requests[5];
  uint64_t num_cut_off = 77;

  pyrex_engine_t *engine = open_engine(model);
  for (int i = 0; i < 5; i++) requests[i] = submit(engine, prompt, 4);
  OK(pyrex_engine_drain(engine, 120000, &num_cut_off));
  CHECK(num_cut_off == 0);
  for (int i = 0; i < 5; i++) {
    answer_t answer = read_answer(requests[i]);
    CHECK(answer.kind == PYREX_EVENT_FINISHED && answer.num_tokens == 4);
    pyrex_request_free(requests[i]);
  }
  check_closed(engine, prompt);
  pyrex_engine_free(engine);

  engine = open_engine(model);
  for (int i = 0; i < 5; i++) requests[i] = submit(engine, prompt, 1000);
  OK(pyrex_engine_drain(engine, 1, &num_cut_off));
  CHECK(num_cut_off == 5);
  for (int i = 0; i < 5; i++) {
    answer_t answer = read_answer(requests[i]);
    CHECK(answer.kind == PYREX_EVENT_FAILED);
    CHECK_STATUS(PYREX_CLOSED, answer.status);
    pyrex_request_free(requests[i]);
  }
  check_closed(engine, prompt);
  OK(pyrex_engine_drain(engine, 0, NULL));
  pyrex_engine_free(engine);

  pyrex_prompt_free(prompt);
  return 0;
}
