/* image MODEL PICTURE: asks about a red circle, from a file and from memory. */
#include "check.h"

static void check_answer(pyrex_engine_t *engine, pyrex_prompt_t *prompt, uint32_t image_token_id) {
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, NULL, &request));

  const pyrex_event_t *event;
  OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  CHECK(event->kind == PYREX_EVENT_STARTED);
  CHECK(event->num_image_tokens > 0 && event->num_image_tokens < event->num_prompt_tokens);
  size_t num_image_tokens = 0;
  for (size_t i = 0; i < event->num_prompt_tokens; i++) {
    num_image_tokens += event->prompt_token_ids[i] == image_token_id;
  }
  CHECK(num_image_tokens == event->num_image_tokens);

  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FINISHED);
  CHECK(strcmp(answer.text, "This is a simple image of a solid red circle on a white background.") == 0);
  pyrex_request_free(request);
}

int main(int argc, char **argv) {
  const char *picture = argument(argc, argv, 2, "a picture of a red circle");
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  OK(pyrex_engine_info(engine, &info));
  CHECK(info.reads_images == 1);

  pyrex_prompt_t *prompt = ask_about(picture, "Describe this image.");
  check_answer(engine, prompt, info.image_token_id);
  pyrex_prompt_free(prompt);

  /* The bytes are copied, and may go before the request is made. */
  size_t len;
  uint8_t *bytes = read_file(picture, &len);
  OK(pyrex_prompt_new(&prompt));
  OK(pyrex_prompt_add_turn(prompt, "user"));
  OK(pyrex_prompt_add_image(prompt, bytes, len));
  OK(pyrex_prompt_add_text(prompt, "Describe this image.", PYREX_NUL_TERMINATED));
  memset(bytes, 0, len);
  free(bytes);
  check_answer(engine, prompt, info.image_token_id);
  CHECK(stats_of(engine).prefix_hit_tokens > 0);
  pyrex_prompt_free(prompt);

  /* What is no picture is found when the prompt is used: that request fails, and no other. */
  OK(pyrex_prompt_new(&prompt));
  REFUSED(PYREX_INVALID_REQUEST, "no turn", pyrex_prompt_add_image(prompt, (const uint8_t *)"GIF", 3));
  OK(pyrex_prompt_add_turn(prompt, "user"));
  OK(pyrex_prompt_add_image(prompt, (const uint8_t *)"no picture", 10));
  REFUSED(PYREX_IO, "/nowhere.png", pyrex_prompt_add_image_file(prompt, "/nowhere.png"));
  pyrex_request_t *request = submit(engine, prompt, 1);
  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FAILED);
  CHECK_STATUS(PYREX_INVALID_REQUEST, answer.status);
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);

  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
