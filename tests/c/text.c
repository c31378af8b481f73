/* text MODEL PICTURE: from text to tokens and back, without asking the model. */
#include "check.h"

static void round_trip(pyrex_engine_t *engine, const char *text, size_t text_len) {
  uint32_t token_ids[256];
  size_t num_tokens, again, len;
  OK(pyrex_engine_tokenize(engine, text, text_len, token_ids, 256, &num_tokens));
  CHECK(num_tokens > 0 && num_tokens <= 256);
  char *back = NULL;
  OK(pyrex_engine_detokenize(engine, token_ids, num_tokens, &back, &len));
  CHECK(len == text_len && memcmp(back, text, len) == 0 && back[len] == '\0');
  pyrex_string_free(back);
  OK(pyrex_engine_detokenize(engine, token_ids, num_tokens, &back, NULL));
  pyrex_string_free(back);

  /* Counting takes no room, and what has no room is not written. */
  OK(pyrex_engine_tokenize(engine, text, text_len, NULL, 0, &again));
  CHECK(again == num_tokens);
  uint32_t few[256];
  memset(few, 0xa5, sizeof few);
  OK(pyrex_engine_tokenize(engine, text, text_len, few, num_tokens - 1, &again));
  CHECK(again == num_tokens);
  CHECK(memcmp(few, token_ids, (num_tokens - 1) * sizeof *few) == 0 && few[num_tokens - 1] == 0xa5a5a5a5);
}

static void conversations(pyrex_engine_t *engine, const char *picture) {
  pyrex_prompt_t *prompt = ask_about(picture, "Describe this image.");
  char *text = NULL;
  size_t len, num_tokens, num_image_tokens;
  OK(pyrex_engine_apply_template(engine, prompt, &text, &len));
  CHECK(strlen(text) == len && strstr(text, "<|image|>Describe this image.") && strstr(text, "<|turn>model"));
  pyrex_string_free(text);

  OK(pyrex_engine_encode(engine, prompt, NULL, 0, &num_tokens, &num_image_tokens));
  CHECK(num_image_tokens > 0 && num_image_tokens < num_tokens);
  uint32_t *token_ids = malloc(num_tokens * sizeof *token_ids);
  CHECK(token_ids != NULL);
  OK(pyrex_engine_encode(engine, prompt, token_ids, num_tokens, &num_tokens, NULL));
  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  OK(pyrex_engine_info(engine, &info));
  size_t found = 0;
  for (size_t i = 0; i < num_tokens; i++) found += token_ids[i] == info.image_token_id;
  CHECK(found == num_image_tokens);
  free(token_ids);

  /* A variable of the template, and fields and tools that this template does not read. */
  OK(pyrex_prompt_set_variable(prompt, "add_generation_prompt", "false"));
  OK(pyrex_prompt_set_field(prompt, "name", "\"Ada\""));
  OK(pyrex_prompt_set_tools(prompt, "[{\"name\": \"look\"}]"));
  OK(pyrex_engine_apply_template(engine, prompt, &text, NULL));
  CHECK(strstr(text, "<|turn>model") == NULL);
  pyrex_string_free(text);
  REFUSED(PYREX_INVALID_REQUEST, "json", pyrex_prompt_set_variable(prompt, "enable_thinking", "maybe"));
  REFUSED(PYREX_INVALID_REQUEST, "list", pyrex_prompt_set_tools(prompt, "{}"));
  pyrex_prompt_free(prompt);
}

static void other_prompts(pyrex_engine_t *engine) {
  uint32_t token_ids[16], ids[2] = {5, 6};
  size_t num_tokens, num_image_tokens = 77;
  char *text = (char *)&text;

  /* Plain text begins with the beginning-of-sequence token, and has no turns. */
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_from_text("red circle", 3, &prompt));
  OK(pyrex_engine_encode(engine, prompt, token_ids, 16, &num_tokens, &num_image_tokens));
  CHECK(num_tokens >= 2 && token_ids[0] == 2 && num_image_tokens == 0);
  REFUSED(PYREX_INVALID_REQUEST, "plain text", pyrex_prompt_add_turn(prompt, "user"));
  REFUSED(PYREX_INVALID_REQUEST, "no conversation", pyrex_engine_apply_template(engine, prompt, &text, NULL));
  CHECK(text == NULL);
  pyrex_prompt_free(prompt);

  OK(pyrex_prompt_from_ids(ids, 2, &prompt));
  OK(pyrex_engine_encode(engine, prompt, token_ids, 16, &num_tokens, NULL));
  CHECK(num_tokens == 2 && memcmp(token_ids, ids, sizeof ids) == 0);
  REFUSED(PYREX_INVALID_REQUEST, "token ids", pyrex_prompt_add_text(prompt, "a", 1));
  pyrex_prompt_free(prompt);

  OK(pyrex_prompt_new(&prompt));
  REFUSED(PYREX_INVALID_REQUEST, "no turn", pyrex_prompt_add_text(prompt, "a", 1));
  pyrex_prompt_free(prompt);
}

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));

  round_trip(engine, "a red circle", 12);
  round_trip(engine, "Gr\xc3\xbc\xc3\x9f" "e \xe4\xb8\x96\xe7\x95\x8c \xf0\x9f\x94\xb4", 20);
  round_trip(engine, "a\0b\0", 4);

  size_t num_tokens = 77, len;
  OK(pyrex_engine_tokenize(engine, "", 0, NULL, 0, &num_tokens));
  CHECK(num_tokens == 0);
  OK(pyrex_engine_tokenize(engine, NULL, 0, NULL, 0, &num_tokens));
  char *text = NULL;
  OK(pyrex_engine_detokenize(engine, NULL, 0, &text, &len));
  CHECK(len == 0 && text[0] == '\0');
  pyrex_string_free(text);
  uint32_t unknown = UINT32_MAX;
  OK(pyrex_engine_detokenize(engine, &unknown, 1, &text, &len));
  CHECK(len == 0);
  pyrex_string_free(text);
  REFUSED(PYREX_INVALID_REQUEST, "text is not UTF-8 at byte 1",
          pyrex_engine_tokenize(engine, "a\xff", 2, NULL, 0, &num_tokens));
  REFUSED(PYREX_NULL_ARGUMENT, "token_ids is NULL", pyrex_engine_tokenize(engine, "a", 1, NULL, 4, &num_tokens));

  conversations(engine, argument(argc, argv, 2, "a picture"));
  other_prompts(engine);
  pyrex_engine_free(engine);
  return 0;
}
