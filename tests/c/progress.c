/* progress MODEL: loading tells how far it is, and can be ended. */
#include "check.h"

typedef struct {
  int num_calls;
  uint64_t done;
  uint64_t total;
  uint64_t stop_at;
} progress_t;

/* The caller of pyrex_engine_open() waits meanwhile, so that nothing has to be locked. */
static int32_t on_progress(void *progress_data, uint64_t done, uint64_t total) {
  progress_t *progress = progress_data;
  CHECK(done >= progress->done && done <= total);
  progress->num_calls += 1;
  progress->done = done;
  progress->total = total;
  return done >= progress->stop_at;
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  progress_t progress = {0};
  progress.stop_at = UINT64_MAX;
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.progress = on_progress;
  options.progress_data = &progress;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(model, &options, &engine));
  CHECK(progress.num_calls > 1 && progress.total > 0 && progress.done == progress.total);
  pyrex_engine_free(engine);

  uint64_t half = progress.total / 2;
  int num_calls = progress.num_calls;
  progress = (progress_t){0};
  progress.stop_at = half;
  engine = (pyrex_engine_t *)&progress;
  CHECK_STATUS(PYREX_CANCELLED, pyrex_engine_open(model, &options, &engine));
  CHECK(engine == NULL);
  CHECK(progress.num_calls < num_calls && progress.done >= half);
  return 0;
}
