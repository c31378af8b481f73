/*
 * growth MODEL SCRATCH: structs grow. A program that was compiled against an older header has shorter ones, and nothing
 * beyond them may be read or written; one that was compiled against a newer header has longer ones.
 */
#include "check.h"
#include <stddef.h>

enum { MARGIN = 64, CANARY = 0xa5, NEWER = 32 };

/* A zeroed struct of `size` bytes between bytes that must stay as they are. */
static void *guarded(size_t size) {
  unsigned char *block = malloc(size + 2 * MARGIN);
  CHECK(block != NULL);
  memset(block, CANARY, size + 2 * MARGIN);
  memset(block + MARGIN, 0, size);
  memcpy(block + MARGIN, &size, sizeof size);
  return block + MARGIN;
}

static void check_and_free(void *value, size_t size) {
  unsigned char *bytes = value;
  for (int i = 1; i <= MARGIN; i++) CHECK(bytes[-i] == CANARY);
  for (int i = 0; i < MARGIN; i++) CHECK(bytes[size + (size_t)i] == CANARY);
  CHECK(memcmp(bytes, &size, sizeof size) == 0);
  free(bytes - MARGIN);
}

/* One function for each struct that grows. */
typedef struct {
  const char *name;
  size_t size;
  int is_written;
  pyrex_status_t (*call)(void *value);
} growing_t;

static const char *model, *dump_path;
static pyrex_engine_t *engine;
static pyrex_prompt_t *prompt;
static pyrex_comparison_t *comparison;

static pyrex_status_t engine_options(void *value) {
  pyrex_engine_t *opened = NULL;
  pyrex_status_t status = pyrex_engine_open(model, value, &opened);
  CHECK((opened != NULL) == (status == PYREX_OK));
  pyrex_engine_free(opened);
  return status;
}

static pyrex_status_t request_options(void *value) {
  pyrex_request_t *request = NULL;
  pyrex_status_t status = pyrex_engine_submit(engine, prompt, value, &request);
  CHECK((request != NULL) == (status == PYREX_OK));
  pyrex_request_free(request);
  return status;
}

static pyrex_status_t dump_options(void *value) { return pyrex_dump(model, prompt, value, dump_path, NULL); }
static pyrex_status_t info(void *value) { return pyrex_engine_info(engine, value); }
static pyrex_status_t stats(void *value) { return pyrex_engine_stats(engine, value); }
static pyrex_status_t compared(void *value) { return pyrex_comparison_at(comparison, 0, value); }

static const growing_t all[] = {
    {"pyrex_engine_options_t", sizeof(pyrex_engine_options_t), 0, engine_options},
    {"pyrex_request_options_t", sizeof(pyrex_request_options_t), 0, request_options},
    {"pyrex_dump_options_t", sizeof(pyrex_dump_options_t), 0, dump_options},
    {"pyrex_engine_info_t", sizeof(pyrex_engine_info_t), 1, info},
    {"pyrex_stats_t", sizeof(pyrex_stats_t), 1, stats},
    {"pyrex_compared_t", sizeof(pyrex_compared_t), 1, compared},
};

static void older(const growing_t *growing) {
  /* A model takes a moment to load: a few sizes will do where one is. */
  size_t step = growing->is_written || growing->call == request_options ? 8 : 40;
  for (size_t size = sizeof(size_t); size <= growing->size; size += step) {
    void *value = guarded(size);
    OK(growing->call(value));
    check_and_free(value, size);
  }
}

static void newer(const growing_t *growing) {
  size_t size = growing->size + NEWER;
  unsigned char *value = guarded(size);
  if (growing->is_written) memset(value + growing->size, CANARY, NEWER);
  OK(growing->call(value));
  for (int i = 0; i < NEWER; i++) {
    CHECK(value[growing->size + (size_t)i] == (growing->is_written ? CANARY : 0));
  }
  if (!growing->is_written) {
    /* It asks for something that this version does not know. */
    value[size - 1] = 1;
    REFUSED(PYREX_UNSUPPORTED, "does not know", growing->call(value));
    CHECK(strstr(pyrex_last_error_message(), growing->name));
  }
  check_and_free(value, size);
}

static void garbage(const growing_t *growing) {
  static const size_t sizes[] = {0, 7, 12, 4104, SIZE_MAX};
  for (int i = 0; i < 5; i++) {
    unsigned char *value = guarded(growing->size);
    memcpy(value, &sizes[i], sizeof sizes[i]);
    REFUSED(PYREX_INVALID_REQUEST, "struct_size is", growing->call(value));
    CHECK(strstr(pyrex_last_error_message(), growing->name));
    for (size_t byte = sizeof(size_t); byte < growing->size; byte++) CHECK(value[byte] == 0);
    memcpy(value, &growing->size, sizeof growing->size);
    check_and_free(value, growing->size);
  }
}

/* What the header of an older version may have said. */
typedef struct {
  size_t struct_size;
  const char *device;
  const char *dtype;
  uint64_t num_threads;
  uint64_t max_model_len;
  uint64_t max_batch_tokens;
  uint64_t max_sequences;
} old_engine_options_t;

typedef struct {
  size_t struct_size;
  const char *family;
  uint64_t vocab_size;
  uint64_t max_model_len;
} old_engine_info_t;

static void fields_of_older_structs_count(void) {
  old_engine_options_t *options = guarded(sizeof *options);
  options->max_model_len = 77;
  options->max_sequences = 3;
  pyrex_engine_t *opened = NULL;
  OK(pyrex_engine_open(model, (const pyrex_engine_options_t *)options, &opened));
  check_and_free(options, sizeof *options);

  pyrex_engine_info_t now = {0};
  now.struct_size = sizeof now;
  OK(pyrex_engine_info(opened, &now));
  CHECK(now.max_model_len == 77 && now.max_sequences == 3 && now.max_waiting == 1024);

  old_engine_info_t *then = guarded(sizeof *then);
  OK(pyrex_engine_info(opened, (pyrex_engine_info_t *)then));
  CHECK(then->family == now.family && then->vocab_size == now.vocab_size && then->max_model_len == 77);
  check_and_free(then, sizeof *then);
  pyrex_engine_free(opened);
}

int main(int argc, char **argv) {
  model = argument(argc, argv, 1, "the folder of a model");
  char path[4096];
  snprintf(path, sizeof path, "%s/growth.safetensors", argument(argc, argv, 2, "a folder to write to"));
  dump_path = path;
  engine = open_engine(model);
  uint32_t token_id = 3;
  OK(pyrex_prompt_from_ids(&token_id, 1, &prompt));
  OK(pyrex_dump(model, prompt, NULL, dump_path, NULL));
  OK(pyrex_compare(dump_path, dump_path, NULL, &comparison));

  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    older(&all[i]);
    newer(&all[i]);
    garbage(&all[i]);
  }
  fields_of_older_structs_count();

  remove(dump_path);
  pyrex_comparison_free(comparison);
  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
