/* two_engines MODEL OTHER: two engines in one process answer the same prompt, and know nothing of each other. */
#include "check.h"

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_engine_t *other = open_engine(argument(argc, argv, 2, "the folder of another model"));
  pyrex_prompt_t *prompt = ask("Describe this image.");

  pyrex_request_t *requests[] = {
      submit(engine, prompt, 6), submit(other, prompt, 6), submit(engine, prompt, 6), submit(other, prompt, 6)};
  answer_t answers[4];
  for (int i = 3; i >= 0; i--) {
    answers[i] = read_answer(requests[i]);
    CHECK(answers[i].kind == PYREX_EVENT_FINISHED && answers[i].num_tokens == 6);
    pyrex_request_free(requests[i]);
  }
  CHECK(strcmp(answers[0].text, answers[2].text) == 0 && strcmp(answers[1].text, answers[3].text) == 0);
  CHECK(strcmp(answers[0].text, answers[1].text) != 0);

  /* One may go while the other works. */
  pyrex_request_t *cut_off = submit(engine, prompt, 1000), *running = submit(other, prompt, 6);
  pyrex_engine_free(engine);
  CHECK_STATUS(PYREX_CLOSED, read_answer(cut_off).status);
  answer_t answer = read_answer(running);
  CHECK(answer.kind == PYREX_EVENT_FINISHED && strcmp(answer.text, answers[1].text) == 0);
  pyrex_request_free(cut_off);
  pyrex_request_free(running);
  check_empty(other);

  pyrex_prompt_free(prompt);
  pyrex_engine_free(other);
  return 0;
}
