/* json MODEL PICTURE: requests in OpenAI's shape. */
#include "check.h"

/* The bytes of a file as a data URL within a body. */
static char *body_with_picture(const char *path) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static const char head[] =
      "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Describe this image.\"},"
      "{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,";
  static const char tail[] = "\"}}]}], \"max_tokens\": 1}";
  size_t len;
  uint8_t *bytes = read_file(path, &len);
  char *body = malloc(sizeof head + (len + 2) / 3 * 4 + sizeof tail);
  CHECK(body != NULL);
  char *to = body + sprintf(body, "%s", head);
  for (size_t i = 0; i < len; i += 3) {
    size_t num_left = len - i;
    uint32_t three = (uint32_t)bytes[i] << 16 | (num_left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (num_left > 2 ? (uint32_t)bytes[i + 2] : 0);
    *to++ = digits[three >> 18];
    *to++ = digits[three >> 12 & 63];
    *to++ = num_left > 1 ? digits[three >> 6 & 63] : '=';
    *to++ = num_left > 2 ? digits[three & 63] : '=';
  }
  strcpy(to, tail);
  free(bytes);
  return body;
}

static pyrex_status_t submit_json(pyrex_engine_t *engine, const char *json) {
  pyrex_request_t *request = (pyrex_request_t *)&request;
  pyrex_status_t status = pyrex_engine_submit_json(engine, json, PYREX_NUL_TERMINATED, NULL, &request);
  CHECK((request != NULL) == (status == PYREX_OK));
  pyrex_request_free(request);

  pyrex_prompt_t *prompt = (pyrex_prompt_t *)&prompt;
  CHECK_STATUS(status, pyrex_prompt_from_json(json, strlen(json), &prompt));
  CHECK((prompt != NULL) == (status == PYREX_OK));
  pyrex_prompt_free(prompt);
  return status;
}

static void with_a_picture(pyrex_engine_t *engine, const char *picture) {
  char *body = body_with_picture(picture);
  int user_data;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit_json(engine, body, strlen(body), &user_data, &request));
  const pyrex_event_t *event;
  OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  CHECK(event->kind == PYREX_EVENT_STARTED && event->user_data == &user_data);
  size_t num_image_tokens = event->num_image_tokens;
  CHECK(num_image_tokens > 0);
  pyrex_request_free(request);

  pyrex_prompt_t *prompt = NULL;
  size_t num_tokens, found;
  OK(pyrex_prompt_from_json(body, PYREX_NUL_TERMINATED, &prompt));
  OK(pyrex_engine_encode(engine, prompt, NULL, 0, &num_tokens, &found));
  CHECK(found == num_image_tokens);
  pyrex_prompt_free(prompt);
  free(body);
}

static void answers_as_the_same_request_in_c(pyrex_engine_t *engine) {
  static const char json[] =
      "{\"model\": \"any\", \"messages\": [{\"role\": \"user\", \"content\": \"What color is it?\"}],"
      " \"temperature\": 0, \"max_tokens\": 4, \"stream\": true}";
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit_json(engine, json, sizeof json - 1, NULL, &request));
  answer_t of_json = read_answer(request);
  pyrex_request_free(request);

  pyrex_prompt_t *prompt = ask("What color is it?");
  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = 4;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  answer_t of_c = read_answer(request);
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  CHECK(of_json.kind == PYREX_EVENT_FINISHED && of_json.num_tokens > 0);
  CHECK(of_json.num_tokens == of_c.num_tokens && strcmp(of_json.text, of_c.text) == 0);
}

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  with_a_picture(engine, argument(argc, argv, 2, "a picture"));
  answers_as_the_same_request_in_c(engine);

  OK(submit_json(engine, "{\"prompt\": \"red\", \"max_tokens\": 1}"));
  REFUSED(PYREX_INVALID_REQUEST, "`colour`", submit_json(engine, "{\"prompt\": \"red\", \"colour\": 1}"));
  REFUSED(PYREX_UNSUPPORTED, "`suffix`", submit_json(engine, "{\"prompt\": \"red\", \"suffix\": \"!\"}"));
  REFUSED(PYREX_INVALID_REQUEST, "max_tokens", submit_json(engine, "{\"prompt\": \"red\", \"max_tokens\": -1}"));
  REFUSED(PYREX_INVALID_REQUEST, "temperature", submit_json(engine, "{\"prompt\": \"red\", \"temperature\": \"hot\"}"));
  REFUSED(PYREX_INVALID_REQUEST, "line 1", submit_json(engine, "{\"prompt\": "));
  REFUSED(PYREX_INVALID_REQUEST, "", submit_json(engine, ""));
  REFUSED(PYREX_INVALID_REQUEST, "", submit_json(engine, "[]"));
  REFUSED(PYREX_INVALID_REQUEST, "json is not UTF-8 at byte 12", submit_json(engine, "{\"prompt\": \"\xff\"}"));

  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
