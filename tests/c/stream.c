/* stream MODEL: what the events of a request say, and in which order they come. */
#include "check.h"
#include <math.h>

static int user_data;

static const pyrex_event_t *next(pyrex_request_t *request, int32_t kind) {
  const pyrex_event_t *event = NULL;
  OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  CHECK(event->kind == kind);
  CHECK(event->user_data == &user_data);
  CHECK(event->text != NULL && event->text[event->text_len] == '\0');
  CHECK(event->status == PYREX_OK);
  return event;
}

static void check_logprobs(const pyrex_event_t *event) {
  CHECK(event->num_top_logprobs == 3);
  CHECK(event->logprob <= 0);
  /* It was chosen because it was the likeliest. */
  CHECK(event->top_logprobs[0].token_id == event->token_id);
  CHECK(fabsf(event->top_logprobs[0].logprob - event->logprob) < 1e-4f);
  CHECK(event->top_logprobs[0].logprob >= event->top_logprobs[1].logprob);
  CHECK(event->top_logprobs[1].logprob >= event->top_logprobs[2].logprob);
}

int main(int argc, char **argv) {
  enum { NUM_TOKENS = 8 };
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  size_t num_prompt_tokens;
  OK(pyrex_engine_encode(engine, prompt, NULL, 0, &num_prompt_tokens, NULL));

  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = NUM_TOKENS;
  options.ignore_eos = 1;
  options.logprobs = 1;
  options.top_logprobs = 3;
  options.user_data = &user_data;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  void *found = NULL;
  OK(pyrex_request_user_data(request, &found));
  CHECK(found == &user_data);

  const pyrex_event_t *event = next(request, PYREX_EVENT_STARTED);
  CHECK(event->num_prompt_tokens == num_prompt_tokens && event->num_image_tokens == 0);
  CHECK(event->prompt_token_ids != NULL && event->text_len == 0 && event->top_logprobs == NULL);

  char text[1024] = "";
  uint32_t token_ids[NUM_TOKENS];
  for (int i = 0; i < NUM_TOKENS; i++) {
    event = next(request, PYREX_EVENT_TOKEN);
    CHECK(event->finish_reason == (i + 1 < NUM_TOKENS ? PYREX_FINISH_NONE : PYREX_FINISH_LENGTH));
    CHECK(event->completion_idx == 0 && event->prompt_token_ids == NULL);
    check_logprobs(event);
    token_ids[i] = event->token_id;
    CHECK(strlen(text) + event->text_len < sizeof text);
    strcat(text, event->text);
  }

  event = next(request, PYREX_EVENT_FINISHED);
  CHECK(event->finish_reason == PYREX_FINISH_LENGTH);
  CHECK(event->num_prompt_tokens == num_prompt_tokens && event->num_image_tokens == 0);
  CHECK(event->num_cached_tokens < num_prompt_tokens);
  CHECK(event->num_completion_tokens == NUM_TOKENS);
  CHECK(event->load_ms > 0 && event->prefill_ms > 0 && event->decode_ms > 0);
  CHECK(event->ttft_ms >= event->prefill_ms);

  /* Nothing comes after it, and `event` is written no more. */
  event = NULL;
  for (int i = 0; i < 3; i++) {
    CHECK_STATUS(PYREX_ENDED, pyrex_request_next(request, PYREX_FOREVER, &event));
    CHECK_STATUS(PYREX_ENDED, pyrex_request_try_next(request, &event));
  }
  CHECK(event == NULL);

  /* The pieces are the text of the tokens. */
  char *whole = NULL;
  size_t len;
  OK(pyrex_engine_detokenize(engine, token_ids, NUM_TOKENS, &whole, &len));
  CHECK(len == strlen(text) && strcmp(text, whole) == 0);
  pyrex_string_free(whole);
  pyrex_request_free(request);

  /* The same again with a stop token: it is told, its text is not, and nothing follows. */
  options.stop_token_ids = &token_ids[2];
  options.num_stop_token_ids = 1;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  next(request, PYREX_EVENT_STARTED);
  int32_t finish_reason = PYREX_FINISH_NONE;
  for (int i = 0; finish_reason == PYREX_FINISH_NONE; i++) {
    event = next(request, PYREX_EVENT_TOKEN);
    CHECK(i <= 2 && event->token_id == token_ids[i]);
    finish_reason = event->finish_reason;
  }
  CHECK(finish_reason == PYREX_FINISH_STOP && event->token_id == token_ids[2]);
  CHECK(next(request, PYREX_EVENT_FINISHED)->finish_reason == PYREX_FINISH_STOP);
  pyrex_request_free(request);

  /* Several completions come side by side, and are counted together. */
  options = (pyrex_request_options_t){0};
  options.struct_size = sizeof options;
  options.max_tokens = NUM_TOKENS;
  options.ignore_eos = 1;
  options.temperature = 1;
  options.seed = 7;
  options.has_seed = 1;
  options.num_completions = 3;
  options.user_data = &user_data;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  next(request, PYREX_EVENT_STARTED);
  size_t num_tokens[3] = {0};
  for (int i = 0; i < 3 * NUM_TOKENS; i++) {
    event = next(request, PYREX_EVENT_TOKEN);
    CHECK(event->completion_idx < 3 && event->num_top_logprobs == 0);
    num_tokens[event->completion_idx] += 1;
  }
  for (int i = 0; i < 3; i++) CHECK(num_tokens[i] == NUM_TOKENS);
  event = next(request, PYREX_EVENT_FINISHED);
  CHECK(event->num_completion_tokens == 3 * NUM_TOKENS);
  pyrex_request_free(request);

  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
