/* fork MODEL: in a forked process the objects say so and do nothing, and the process that made them goes on. */
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

#define FORKED(call) CHECK_STATUS(PYREX_FORKED, call)

static void ring(void *user_data) { (void)user_data; }

static void use_engine(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  FORKED(pyrex_engine_info(engine, &info));
  pyrex_stats_t stats = {0};
  stats.struct_size = sizeof stats;
  FORKED(pyrex_engine_stats(engine, &stats));
  char *text = (char *)&info;
  FORKED(pyrex_engine_stats_json(engine, &text));
  FORKED(pyrex_engine_probe(engine, 1000));
  FORKED(pyrex_engine_drain(engine, 1000, NULL));
  CHECK(text == NULL);
  uint32_t token_ids[8];
  size_t num_tokens;
  FORKED(pyrex_engine_tokenize(engine, "red", 3, token_ids, 8, &num_tokens));
  FORKED(pyrex_engine_detokenize(engine, token_ids, 0, &text, NULL));
  FORKED(pyrex_engine_encode(engine, prompt, token_ids, 8, &num_tokens, NULL));
  FORKED(pyrex_engine_apply_template(engine, prompt, &text, NULL));
  pyrex_request_t *request = (pyrex_request_t *)&info;
  FORKED(pyrex_engine_submit(engine, prompt, NULL, &request));
  FORKED(pyrex_engine_submit_json(engine, "{\"prompt\": \"a\"}", PYREX_NUL_TERMINATED, NULL, &request));
  CHECK(request == NULL && text == NULL);
}

static void use_request(pyrex_request_t *request) {
  const pyrex_event_t *event;
  FORKED(pyrex_request_next(request, PYREX_FOREVER, &event));
  FORKED(pyrex_request_try_next(request, &event));
  FORKED(pyrex_request_set_notify(request, ring));
  int32_t descriptor;
  FORKED(pyrex_request_descriptor(request, &descriptor));
  void *user_data;
  FORKED(pyrex_request_user_data(request, &user_data));
  FORKED(pyrex_request_cancel(request));
  CHECK(strstr(pyrex_last_error_message(), "fork") != NULL);
}

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 40);
  const pyrex_event_t *event;
  OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  CHECK(event->kind == PYREX_EVENT_STARTED);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    use_engine(engine, prompt);
    use_request(request);
    /* A prompt has no threads, and works. */
    OK(pyrex_prompt_add_text(prompt, "Please.", 7));
    pyrex_prompt_free(prompt);
    pyrex_request_free(request);
    pyrex_engine_free(engine);
    _exit(0);
  }
  int how;
  CHECK(waitpid(child, &how, 0) == child && WIFEXITED(how) && WEXITSTATUS(how) == 0);

  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FINISHED && answer.num_tokens == 40);
  pyrex_request_free(request);
  request = submit(engine, prompt, 2);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
