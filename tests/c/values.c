/* values MODEL: every option takes whatever is in it: it works, or is refused by name. */
#include "check.h"
#include <math.h>
#include <stddef.h>

typedef struct {
  const char *name;
  size_t offset;
  /* What a refusal calls it. */
  const char *word;
} field_t;

#define ENGINE_FIELD(name, word) {#name, offsetof(pyrex_engine_options_t, name), word}
#define REQUEST_FIELD(name, word) {#name, offsetof(pyrex_request_options_t, name), word}

static const field_t engine_counts[] = {
    ENGINE_FIELD(num_threads, "num_threads"),
    ENGINE_FIELD(max_model_len, "max_model_len"),
    ENGINE_FIELD(max_batch_tokens, "max_batch_tokens"),
    ENGINE_FIELD(max_sequences, "max_sequences"),
    ENGINE_FIELD(max_waiting, "max_waiting"),
    ENGINE_FIELD(max_events, "max_events"),
    ENGINE_FIELD(kv_cache_bytes, "cache"),
    ENGINE_FIELD(reader_timeout_ms, "reader_timeout_ms"),
    ENGINE_FIELD(stuck_after_ms, "stuck_after_ms"),
};
static const field_t engine_words[] = {
    ENGINE_FIELD(device, "device"),
    ENGINE_FIELD(dtype, "dtype"),
    ENGINE_FIELD(vision_dtype, "dtype"),
    ENGINE_FIELD(tables, "tables"),
};
static const field_t request_counts[] = {
    REQUEST_FIELD(top_k, "top_k"),
    REQUEST_FIELD(seed, "seed"),
    REQUEST_FIELD(min_tokens, "min_tokens"),
    REQUEST_FIELD(max_tokens, "max_tokens"),
    REQUEST_FIELD(num_completions, "num_completions"),
    REQUEST_FIELD(top_logprobs, "logprobs"),
    REQUEST_FIELD(timeout_ms, "timeout_ms"),
};
static const field_t request_switches[] = {
    REQUEST_FIELD(has_seed, "has_seed"),
    REQUEST_FIELD(priority, "priority"),
    REQUEST_FIELD(ignore_eos, "ignore_eos"),
    REQUEST_FIELD(logprobs, "logprobs"),
};
static const field_t request_numbers[] = {
    REQUEST_FIELD(temperature, "temperature"),
    REQUEST_FIELD(top_p, "top_p"),
    REQUEST_FIELD(min_p, "min_p"),
    REQUEST_FIELD(repetition_penalty, "repetition_penalty"),
    REQUEST_FIELD(presence_penalty, "presence_penalty"),
    REQUEST_FIELD(frequency_penalty, "frequency_penalty"),
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const uint64_t counts[] = {0, 1, 1000000000000, INT64_MAX, UINT64_MAX};

/* Which field is looked at, for whoever reads how far it came. */
static void say(const field_t *field, double value) { fprintf(stderr, "%s = %g\n", field->name, value); }

static void check_named(const field_t *field, const char *message) {
  if (!strstr(message, field->word)) fail_at(__FILE__, __LINE__, message, field->name);
}

/* An engine that opens also works. */
static void open_with(const char *model, const pyrex_engine_options_t *options, const field_t *field) {
  pyrex_engine_t *engine = NULL;
  pyrex_status_t status = pyrex_engine_open(model, options, &engine);
  CHECK((engine != NULL) == (status == PYREX_OK));
  if (status != PYREX_OK) {
    CHECK(status == PYREX_INVALID_REQUEST || status == PYREX_OUT_OF_MEMORY);
    check_named(field, pyrex_last_error_message());
    return;
  }
  uint32_t token_id = 3;
  pyrex_prompt_t *prompt = NULL;
  OK(pyrex_prompt_from_ids(&token_id, 1, &prompt));
  pyrex_request_options_t request_options = {0};
  request_options.struct_size = sizeof request_options;
  request_options.max_tokens = 1;
  pyrex_request_t *request = NULL;
  status = pyrex_engine_submit(engine, prompt, &request_options, &request);
  if (status == PYREX_OK) {
    answer_t answer = read_answer(request);
    if (answer.kind == PYREX_EVENT_FAILED) check_status(__FILE__, __LINE__, field->name, answer.status, PYREX_INVALID_REQUEST);
  } else {
    /* The watchdog of an engine that counts as stuck after a millisecond. */
    CHECK_STATUS(PYREX_DEVICE, status);
  }
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
}

static void of_the_engine(const char *model) {
  pyrex_engine_options_t blank = {0}, options;
  blank.struct_size = sizeof blank;
  for (size_t i = 0; i < COUNT(engine_counts); i++) {
    for (size_t value = 0; value < COUNT(counts); value++) {
      say(&engine_counts[i], (double)counts[value]);
      options = blank;
      memcpy((char *)&options + engine_counts[i].offset, &counts[value], sizeof counts[value]);
      open_with(model, &options, &engine_counts[i]);
    }
  }
  static const field_t fraction = ENGINE_FIELD(kv_cache_fraction, "cache");
  const double fractions[] = {-1, 1e-12, 1, 1.5, 1e12, NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < COUNT(fractions); i++) {
    say(&fraction, fractions[i]);
    options = blank;
    options.kv_cache_fraction = fractions[i];
    open_with(model, &options, &fraction);
  }
  options = blank;
  options.kv_cache_fraction = 0.5;
  options.kv_cache_bytes = 1 << 20;
  open_with(model, &options, &fraction);
  const char *words[] = {"", "gpu", "cuda:-1", "cuda:99999999999999999999", "\xff", "CPU", "f16"};
  for (size_t i = 0; i < COUNT(engine_words); i++) {
    for (size_t word = 0; word < COUNT(words); word++) {
      options = blank;
      memcpy((char *)&options + engine_words[i].offset, &words[word], sizeof words[word]);
      open_with(model, &options, &engine_words[i]);
    }
  }
}

/* The request is refused by name, or has an end. */
static void submit_with(pyrex_engine_t *engine, const pyrex_request_options_t *options, const field_t *field) {
  static pyrex_prompt_t *prompt;
  uint32_t token_id = 3;
  if (!prompt) OK(pyrex_prompt_from_ids(&token_id, 1, &prompt));
  pyrex_request_t *request = (pyrex_request_t *)&request;
  pyrex_status_t status = pyrex_engine_submit(engine, prompt, options, &request);
  CHECK((request != NULL) == (status == PYREX_OK));
  if (status != PYREX_OK) {
    CHECK_STATUS(PYREX_INVALID_REQUEST, status);
    check_named(field, pyrex_last_error_message());
    return;
  }
  const pyrex_event_t *event;
  int num_events = 0;
  while (num_events++ < 4 && pyrex_request_next(request, PYREX_FOREVER, &event) == PYREX_OK) {
    if (event->kind == PYREX_EVENT_FAILED && event->status != PYREX_DEADLINE_EXCEEDED) {
      CHECK_STATUS(PYREX_INVALID_REQUEST, event->status);
      check_named(field, field->offset == offsetof(pyrex_request_options_t, max_tokens) ? field->word : event->text);
    }
  }
  pyrex_request_free(request);
}

static void of_a_request(pyrex_engine_t *engine) {
  pyrex_request_options_t blank = {0}, options;
  blank.struct_size = sizeof blank;
  for (size_t i = 0; i < COUNT(request_counts); i++) {
    for (size_t value = 0; value < COUNT(counts); value++) {
      say(&request_counts[i], (double)counts[value]);
      options = blank;
      options.logprobs = 1;
      memcpy((char *)&options + request_counts[i].offset, &counts[value], sizeof counts[value]);
      submit_with(engine, &options, &request_counts[i]);
    }
  }
  static const int32_t switches[] = {1, -1, 127, 128, -129, INT32_MIN, INT32_MAX};
  for (size_t i = 0; i < COUNT(request_switches); i++) {
    for (size_t value = 0; value < COUNT(switches); value++) {
      options = blank;
      memcpy((char *)&options + request_switches[i].offset, &switches[value], sizeof switches[value]);
      submit_with(engine, &options, &request_switches[i]);
    }
  }
  const float numbers[] = {-1, 1, 1e-30f, 1e12f, -1e12f, NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < COUNT(request_numbers); i++) {
    for (size_t value = 0; value < COUNT(numbers); value++) {
      say(&request_numbers[i], (double)numbers[value]);
      options = blank;
      options.temperature = 1;
      memcpy((char *)&options + request_numbers[i].offset, &numbers[value], sizeof numbers[value]);
      submit_with(engine, &options, &request_numbers[i]);
    }
  }
}

/* Lists: none, too many, and what must not be in them. */
static void lists_of_a_request(pyrex_engine_t *engine) {
  pyrex_request_options_t blank = {0}, options;
  blank.struct_size = sizeof blank;
  static const field_t stop = REQUEST_FIELD(stop, "stop"), ids = REQUEST_FIELD(stop_token_ids, "stop"),
                       bias = REQUEST_FIELD(logit_bias, "logit_bias"), grammar = REQUEST_FIELD(regex, "regex");
  const char *const bad_stops[][1] = {{""}, {"\xff"}, {NULL}};
  for (size_t i = 0; i < COUNT(bad_stops); i++) {
    options = blank;
    options.stop = bad_stops[i];
    options.num_stop = 1;
    pyrex_request_t *request = NULL;
    pyrex_prompt_t *prompt = ask("a");
    CHECK_STATUS(i == 2 ? PYREX_NULL_ARGUMENT : PYREX_INVALID_REQUEST,
                 pyrex_engine_submit(engine, prompt, &options, &request));
    check_named(&stop, pyrex_last_error_message());
    pyrex_prompt_free(prompt);
    options.num_stop = SIZE_MAX;
    submit_with(engine, &options, &stop);
  }
  uint32_t token_id = UINT32_MAX;
  options = blank;
  options.stop_token_ids = &token_id;
  options.num_stop_token_ids = 1;
  submit_with(engine, &options, &ids);
  options.num_stop_token_ids = SIZE_MAX;
  submit_with(engine, &options, &ids);
  const float biases[] = {NAN, INFINITY, -101, 100};
  for (size_t i = 0; i < COUNT(biases); i++) {
    pyrex_logit_bias_t entry = {3, biases[i]};
    options = blank;
    options.logit_bias = &entry;
    options.num_logit_bias = 1;
    submit_with(engine, &options, &bias);
    options.num_logit_bias = SIZE_MAX;
    submit_with(engine, &options, &bias);
  }
  options = blank;
  options.regex = "a";
  options.lark = "start: \"a\"";
  submit_with(engine, &options, &grammar);
  options = blank;
  options.top_logprobs = 2;
  static const field_t top_logprobs = REQUEST_FIELD(top_logprobs, "top_logprobs");
  submit_with(engine, &options, &top_logprobs);
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  of_the_engine(model);
  pyrex_engine_t *engine = open_engine(model);
  of_a_request(engine);
  lists_of_a_request(engine);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
