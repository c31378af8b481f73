/*
 * What the C tests share: checks that say where, what and why before they end the program, and the few steps that most
 * programs begin and end with.
 */
#ifndef CHECK_H
#define CHECK_H

#include "pyrex.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* It is so. */
#define CHECK(condition) \
  do { \
    if (!(condition)) fail_at(__FILE__, __LINE__, #condition, "is not so"); \
  } while (0)

/* The call ends with this status. */
#define CHECK_STATUS(expected, call) check_status(__FILE__, __LINE__, #call, (call), (expected))

/* The call works. */
#define OK(call) CHECK_STATUS(PYREX_OK, call)

/* The call fails with this status and says something with these words in it. */
#define REFUSED(expected, words, call) \
  do { \
    CHECK_STATUS(expected, call); \
    if (!strstr(pyrex_last_error_message(), words)) fail_at(__FILE__, __LINE__, #call, "does not say " words); \
  } while (0)

static inline void fail_at(const char *file, int line, const char *what, const char *why) {
  fprintf(stderr, "%s:%d: %s: %s; the last error is %s: %s\n", file, line, what, why,
          pyrex_status_name(pyrex_last_error_status()), pyrex_last_error_message());
  exit(1);
}

static inline void check_status(const char *file, int line, const char *what, int32_t found, int32_t expected) {
  if (found == expected) return;
  char why[128];
  snprintf(why, sizeof why, "gives %s, expected %s", pyrex_status_name(found), pyrex_status_name(expected));
  fail_at(file, line, what, why);
}

/* An argument of the program. */
static inline const char *argument(int argc, char **argv, int idx, const char *what) {
  if (idx < argc) return argv[idx];
  fprintf(stderr, "%s: argument %d is missing: %s\n", argv[0], idx, what);
  exit(2);
}

/* An engine with the default options. */
static inline pyrex_engine_t *open_engine(const char *model) {
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(model, NULL, &engine));
  return engine;
}

/* A conversation of one turn. */
static inline pyrex_prompt_t *ask(const char *text) {
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_new(&prompt));
  OK(pyrex_prompt_add_turn(prompt, "user"));
  OK(pyrex_prompt_add_text(prompt, text, PYREX_NUL_TERMINATED));
  return prompt;
}

/* The same with a picture before the text. */
static inline pyrex_prompt_t *ask_about(const char *picture, const char *text) {
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_new(&prompt));
  OK(pyrex_prompt_add_turn(prompt, "user"));
  OK(pyrex_prompt_add_image_file(prompt, picture));
  OK(pyrex_prompt_add_text(prompt, text, PYREX_NUL_TERMINATED));
  return prompt;
}

/* A greedy answer of exactly so many tokens. */
static inline pyrex_request_t *submit(const pyrex_engine_t *engine, const pyrex_prompt_t *prompt, uint64_t num_tokens) {
  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = num_tokens;
  options.ignore_eos = 1;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  return request;
}

/* How a request ended. */
typedef struct {
  char text[4096];
  size_t num_tokens;
  int32_t kind;
  int32_t status;
} answer_t;

/* Reads all events of a request that are still to come; checks that one final event comes, and nothing after it. */
static inline answer_t read_answer(pyrex_request_t *request) {
  answer_t answer;
  memset(&answer, 0, sizeof answer);
  size_t len = 0;
  const pyrex_event_t *event;
  pyrex_status_t status;
  while ((status = pyrex_request_next(request, PYREX_FOREVER, &event)) == PYREX_OK) {
    CHECK(answer.kind != PYREX_EVENT_FINISHED && answer.kind != PYREX_EVENT_FAILED);
    answer.kind = event->kind;
    answer.status = event->status;
    if (event->kind == PYREX_EVENT_TOKEN) {
      CHECK(len + event->text_len < sizeof answer.text);
      memcpy(answer.text + len, event->text, event->text_len);
      len += event->text_len;
      answer.num_tokens += 1;
    }
  }
  CHECK_STATUS(PYREX_ENDED, status);
  CHECK(answer.kind == PYREX_EVENT_FINISHED || answer.kind == PYREX_EVENT_FAILED);
  CHECK_STATUS(PYREX_ENDED, pyrex_request_next(request, PYREX_FOREVER, &event));
  CHECK_STATUS(PYREX_ENDED, pyrex_request_try_next(request, &event));
  return answer;
}

/* Reads the rest of a request that was cancelled. */
static inline void check_cancelled(pyrex_request_t *request) {
  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FAILED);
  CHECK_STATUS(PYREX_CANCELLED, answer.status);
}

static inline pyrex_stats_t stats_of(const pyrex_engine_t *engine) {
  pyrex_stats_t stats = {0};
  stats.struct_size = sizeof stats;
  OK(pyrex_engine_stats(engine, &stats));
  return stats;
}

/* Waits until the condition holds; fails when it does not for five minutes, which no tool is too slow for. */
#define WAIT_UNTIL(condition) \
  do { \
    for (time_t since = time(NULL); !(condition); sched_yield()) { \
      if (time(NULL) - since > 300) fail_at(__FILE__, __LINE__, #condition, "never comes true"); \
    } \
  } while (0)

/* Takes so long that another thread that does not wait for this one is caught at it. */
static inline void linger(void) {
  struct timespec time = {0, 50 * 1000 * 1000};
  nanosleep(&time, NULL);
}

/* Waits until nobody is left in the engine and all that requests held is given back. */
static inline void check_empty(const pyrex_engine_t *engine) {
  /* The figures are those of the last step that ended: one more makes sure that they know of all before it. */
  uint32_t token_id = 3;
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_from_ids(&token_id, 1, &prompt));
  pyrex_request_t *request = submit(engine, prompt, 1);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  WAIT_UNTIL(stats_of(engine).num_waiting + stats_of(engine).num_running == 0);
  WAIT_UNTIL(stats_of(engine).num_leases == 0 && stats_of(engine).num_paused == 0);
  WAIT_UNTIL(stats_of(engine).num_free_blocks == stats_of(engine).num_blocks);
}

/* The bytes of a file, to be freed. */
static inline uint8_t *read_file(const char *path, size_t *len) {
  FILE *file = fopen(path, "rb");
  CHECK(file != NULL);
  CHECK(fseek(file, 0, SEEK_END) == 0);
  *len = (size_t)ftell(file);
  rewind(file);
  uint8_t *bytes = malloc(*len + 1);
  CHECK(bytes != NULL && fread(bytes, 1, *len, file) == *len);
  fclose(file);
  return bytes;
}

#endif
