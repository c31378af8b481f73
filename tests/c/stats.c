/* stats MODEL: the struct and the JSON say the same. */
#include "check.h"
#include <math.h>

/* The number behind a key. */
static double number(const char *json, const char *key) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\":", key);
  const char *found = strstr(json, quoted);
  if (!found) fail_at(__FILE__, __LINE__, key, "is not in the JSON");
  return strtod(found + strlen(quoted), NULL);
}

static void check_same(const char *json, const char *key, double found) {
  if (fabs(number(json, key) - found) > 1e-9 * fabs(found)) fail_at(__FILE__, __LINE__, key, "differs");
}

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_stats_t stats = stats_of(engine);
  CHECK(stats.num_blocks > 0 && stats.num_free_blocks == stats.num_blocks && stats.num_steps == 0);

  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 5);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
  /* The figures are those of the last step that ended, and the final event comes before that. */
  WAIT_UNTIL(stats_of(engine).generated_tokens == 5 && stats_of(engine).running_step_ms == 0);

  stats = stats_of(engine);
  CHECK(stats.computed_tokens > 5 && stats.num_steps >= 5);
  CHECK(stats.num_failed_steps == 0 && stats.image_lookups == 0 && stats.preemptions == 0);
  CHECK(stats.forward_ms > 0 && stats.last_step_ms > 0 && stats.forward_ms > stats.encode_images_ms);

  char *json = NULL;
  OK(pyrex_engine_stats_json(engine, &json));
#define SAME(key) check_same(json, #key, (double)stats.key)
  SAME(num_waiting);
  SAME(num_running);
  SAME(num_paused);
  SAME(num_leases);
  SAME(num_blocks);
  SAME(num_free_blocks);
  SAME(num_cached_blocks);
  SAME(prefix_tokens);
  SAME(prefix_hit_tokens);
  SAME(image_lookups);
  SAME(image_hits);
  SAME(preemptions);
  SAME(computed_tokens);
  SAME(generated_tokens);
  SAME(num_steps);
  SAME(num_failed_steps);
  SAME(last_step_ms);
  SAME(running_step_ms);
  SAME(plan_ms);
  SAME(encode_images_ms);
  SAME(forward_ms);
  SAME(sample_ms);
  SAME(deliver_ms);
  /* This one changes by itself. */
  CHECK(number(json, "tokens_per_second") >= 0 && stats.tokens_per_second >= 0);

  /* As many keys as fields. */
  size_t num_keys = 0;
  for (const char *at = json; (at = strchr(at, ':')) != NULL; at++) num_keys++;
  CHECK(num_keys == (sizeof stats - sizeof stats.struct_size) / 8);
  pyrex_string_free(json);

  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
  return 0;
}
