/* smoke MODEL: the least that a program does. */
#include "check.h"

int main(int argc, char **argv) {
  CHECK(pyrex_abi_version() == PYREX_ABI_VERSION);
  CHECK(strlen(pyrex_version_string()) > 0);

  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(argument(argc, argv, 1, "the folder of a model"), NULL, &engine));

  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  OK(pyrex_engine_info(engine, &info));
  CHECK(strcmp(info.family, "gemma4") == 0);
  CHECK(info.vocab_size > 0 && info.max_model_len > 0 && info.load_ms > 0);

  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_new(&prompt));
  OK(pyrex_prompt_add_turn(prompt, "user"));
  OK(pyrex_prompt_add_text(prompt, "What do you see?", PYREX_NUL_TERMINATED));

  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = 4;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));

  const pyrex_event_t *event;
  pyrex_status_t status;
  while ((status = pyrex_request_next(request, PYREX_FOREVER, &event)) == PYREX_OK) {
    if (event->kind == PYREX_EVENT_TOKEN) fwrite(event->text, 1, event->text_len, stdout);
    if (event->kind == PYREX_EVENT_FAILED) fail_at(__FILE__, __LINE__, "the request", event->text);
  }
  CHECK_STATUS(PYREX_ENDED, status);

  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
  return 0;
}
