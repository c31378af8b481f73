/*
 * A valid value for every parameter of every function in pyrex.h, for the program that tests/support/arguments.rs writes:
 * VALID_<function>_<parameter> if there is one, else VALID_<parameter>. A parameter without one fails the test.
 *
 * Pointers to new objects are not here: those go to `new_<type>`, and the program checks what is in it.
 */
#ifndef FIXTURES_H
#define FIXTURES_H

#include "check.h"
#include <math.h>

/* What no function may leave behind where the pointer to a new object should be. */
#define POISON(type) ((type *)(uintptr_t)0xdead)

static pyrex_engine_t *new_pyrex_engine_t;
static pyrex_prompt_t *new_pyrex_prompt_t;
static pyrex_request_t *new_pyrex_request_t;
static pyrex_comparison_t *new_pyrex_comparison_t;
static char *new_char;

static const char *model, *scratch;
static char dump_path[4096], out_path[4096], *long_text;
static pyrex_engine_t *an_engine, *a_closing_engine;
static pyrex_request_t *a_request;
static pyrex_comparison_t *a_comparison;

/* These are new for every call. */
static pyrex_prompt_t *a_prompt;
static pyrex_file_t some_files[4];
static pyrex_engine_options_t engine_options;
static pyrex_request_options_t request_options;
static pyrex_dump_options_t dump_options;
static pyrex_engine_info_t an_info;
static pyrex_stats_t a_stats;
static pyrex_compared_t a_compared;
static const pyrex_event_t *an_event;
static uint32_t some_token_ids[1 << 20];
static size_t a_size;
static uint64_t a_count;
static int32_t a_number;
static void *a_pointer;

#define VALID_status 0
#define VALID_model model
#define VALID_engine an_engine
#define VALID_pyrex_engine_drain_engine a_closing_engine
#define VALID_pyrex_engine_free_engine open_engine(model)
#define VALID_pyrex_engine_open_options &engine_options
#define VALID_pyrex_engine_open_files_options &engine_options
#define VALID_pyrex_engine_submit_options &request_options
#define VALID_pyrex_dump_options &dump_options
#define VALID_files some_files
#define VALID_num_files 4
#define VALID_info &an_info
#define VALID_stats &a_stats
#define VALID_compared &a_compared
#define VALID_timeout_ms 0
#define VALID_pyrex_engine_probe_timeout_ms 120000
#define VALID_num_cut_off &a_count
#define VALID_prompt a_prompt
#define VALID_pyrex_prompt_free_prompt ask("red")
#define VALID_text "red"
#define VALID_pyrex_string_free_text new_text()
#define VALID_text_len PYREX_NUL_TERMINATED
#define VALID_pyrex_engine_detokenize_text_len &a_size
#define VALID_pyrex_engine_apply_template_text_len &a_size
#define VALID_token_ids some_token_ids
#define VALID_num_tokens 2
#define VALID_pyrex_engine_tokenize_num_tokens &a_size
#define VALID_pyrex_engine_encode_num_tokens &a_size
#define VALID_num_image_tokens &a_size
#define VALID_capacity 64
#define VALID_json "{\"prompt\": \"red\", \"max_tokens\": 1}"
#define VALID_json_len PYREX_NUL_TERMINATED
#define VALID_pyrex_prompt_set_field_json "\"Ada\""
#define VALID_pyrex_prompt_set_tools_json "[]"
#define VALID_pyrex_prompt_set_variable_json "true"
#define VALID_role "user"
#define VALID_bytes (const uint8_t *)"GIF89a"
#define VALID_num_bytes 6
#define VALID_path dump_path
#define VALID_name "name"
#define VALID_user_data &a_size
#define VALID_pyrex_request_user_data_user_data &a_pointer
#define VALID_request a_request
#define VALID_pyrex_request_free_request submit(an_engine, a_prompt, 1)
#define VALID_event &an_event
#define VALID_notify on_event
#define VALID_descriptor &a_number
#define VALID_out_path out_path
#define VALID_pyrex_dump_num_tensors &a_count
#define VALID_ours dump_path
#define VALID_theirs dump_path
#define VALID_noise dump_path
#define VALID_comparison a_comparison
#define VALID_pyrex_comparison_free_comparison new_comparison()
#define VALID_tensor_idx 0
#define VALID_pyrex_comparison_count_num_tensors &a_size
#define VALID_pyrex_comparison_count_num_failures &a_size

static inline void on_event(void *user_data) { (void)user_data; }

static inline char *new_text(void) {
  char *text = NULL;
  OK(pyrex_engine_stats_json(an_engine, &text));
  return text;
}

static inline pyrex_comparison_t *new_comparison(void) {
  pyrex_comparison_t *comparison = NULL;
  OK(pyrex_compare(dump_path, dump_path, NULL, &comparison));
  return comparison;
}

/* For good: an engine may read them for a moment after it was freed. */
static inline void read_model(void) {
  static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
  for (int i = 0; i < 4; i++) {
    char path[4096];
    size_t len;
    snprintf(path, sizeof path, "%s/%s", model, names[i]);
    uint8_t *bytes = read_file(path, &len);
    some_files[i] = (pyrex_file_t){names[i], bytes, len, NULL, NULL};
  }
}

/* Before each call. */
static inline void renew(void) {
  pyrex_prompt_free(a_prompt);
  a_prompt = ask("red");
  engine_options = (pyrex_engine_options_t){.struct_size = sizeof engine_options};
  request_options = (pyrex_request_options_t){.struct_size = sizeof request_options, .max_tokens = 1};
  dump_options = (pyrex_dump_options_t){.struct_size = sizeof dump_options};
  an_info = (pyrex_engine_info_t){.struct_size = sizeof an_info};
  a_stats = (pyrex_stats_t){.struct_size = sizeof a_stats};
  a_compared = (pyrex_compared_t){.struct_size = sizeof a_compared};
  some_token_ids[0] = 3;
  some_token_ids[1] = 4;
  new_pyrex_engine_t = POISON(pyrex_engine_t);
  new_pyrex_prompt_t = POISON(pyrex_prompt_t);
  new_pyrex_request_t = POISON(pyrex_request_t);
  new_pyrex_comparison_t = POISON(pyrex_comparison_t);
  new_char = POISON(char);
}

#define RELEASE(type, free_it) \
  if (new_##type != POISON(type)) free_it(new_##type)

/* After each call. */
static inline void release(void) {
  RELEASE(pyrex_engine_t, pyrex_engine_free);
  RELEASE(pyrex_prompt_t, pyrex_prompt_free);
  RELEASE(pyrex_request_t, pyrex_request_free);
  RELEASE(pyrex_comparison_t, pyrex_comparison_free);
  RELEASE(char, pyrex_string_free);
}

static const char *case_name;

/* Prepares a call; the name is told if the process dies, too. */
static inline void begin(const char *name) {
  case_name = name;
  fprintf(stderr, "%s\n", name);
  renew();
}

static inline void fail_case(const char *why, int32_t status) {
  fprintf(stderr, "%s: %s; it gave %s: %s\n", case_name, why, pyrex_status_name(status), pyrex_last_error_message());
  exit(1);
}

/* It worked, or there is nothing to read. */
static inline void check_works(int32_t status) {
  if (status != PYREX_OK && status != PYREX_PENDING && status != PYREX_ENDED) fail_case("valid arguments fail", status);
}

/* It may fail, but with a status that there is. */
static inline void check_known(int32_t status) {
  if (strcmp(pyrex_status_name(status), "unknown") == 0) fail_case("no status", status);
  if (status == PYREX_PANIC || status == PYREX_INTERNAL) fail_case("a mistake of Pyrex", status);
}

static inline void check_is(int32_t expected, int32_t status) {
  if (status != expected) fail_case(pyrex_status_name(expected), status);
}

/* A pointer to a new object is one, or NULL. */
#define CHECK_MADE(type, status) \
  do { \
    if (new_##type == POISON(type)) fail_case("left the pointer to a new object as it was", status); \
    if ((new_##type != NULL) != (status == PYREX_OK)) fail_case("a new object, or none, against its status", status); \
  } while (0)

static inline void set_up(int argc, char **argv) {
  model = argument(argc, argv, 1, "the folder of a model");
  scratch = argument(argc, argv, 2, "a folder to write to");
  snprintf(dump_path, sizeof dump_path, "%s/dump.safetensors", scratch);
  snprintf(out_path, sizeof out_path, "%s/out.safetensors", scratch);
  long_text = malloc((1 << 20) + 1);
  CHECK(long_text != NULL);
  memset(long_text, 'a', 1 << 20);
  long_text[1 << 20] = '\0';
  read_model();
  an_engine = open_engine(model);
  a_closing_engine = open_engine(model);
  renew();
  OK(pyrex_dump(model, a_prompt, NULL, dump_path, NULL));
  a_comparison = new_comparison();
  a_request = submit(an_engine, a_prompt, 1);
  CHECK(read_answer(a_request).kind == PYREX_EVENT_FINISHED);
}

static inline void tear_down(void) {
  pyrex_prompt_free(a_prompt);
  pyrex_request_free(a_request);
  pyrex_comparison_free(a_comparison);
  check_empty(an_engine);
  pyrex_engine_free(an_engine);
  pyrex_engine_free(a_closing_engine);
  free(long_text);
  remove(dump_path);
  remove(out_path);
}

#endif
