/* log MODEL: an engine tells its log to a function, and to nobody once it is freed. */
#include "check.h"
#include <pthread.h>

/* On the heap, so that a line after pyrex_engine_free() is found. */
typedef struct {
  pthread_mutex_t lock;
  int lingers;
  int num_inside;
  int num_lines[PYREX_LOG_TRACE + 1];
} lines_t;

static void on_line(void *log_data, int32_t level, const char *target, const char *message) {
  lines_t *lines = log_data;
  CHECK(level >= PYREX_LOG_ERROR && level <= PYREX_LOG_TRACE);
  CHECK(strncmp(target, "pyrex", 5) == 0 && strlen(message) > 0 && strchr(message, '\n') == NULL);
  pthread_mutex_lock(&lines->lock);
  int lingers = lines->lingers;
  lines->num_lines[level] += 1;
  lines->num_inside += 1;
  pthread_mutex_unlock(&lines->lock);
  if (lingers) linger();
  pthread_mutex_lock(&lines->lock);
  lines->num_inside -= 1;
  pthread_mutex_unlock(&lines->lock);
}

/* Whether a line is just being told; all that come later take long. */
static int is_inside(lines_t *lines) {
  pthread_mutex_lock(&lines->lock);
  lines->lingers = 1;
  int found = lines->num_inside;
  pthread_mutex_unlock(&lines->lock);
  return found > 0;
}

static lines_t listen(const char *model, int32_t level) {
  lines_t *lines = calloc(1, sizeof *lines);
  CHECK(lines != NULL);
  pthread_mutex_init(&lines->lock, NULL);
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.log = on_line;
  options.log_data = lines;
  options.log_level = level;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(model, &options, &engine));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 2);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
  check_empty(engine);

  /* This one has much to tell when the engine goes, but nobody is told. */
  is_inside(lines);
  request = submit(engine, prompt, 1000);
  pyrex_prompt_free(prompt);
  /* Freeing the engine waits for the line that is told meanwhile. */
  if (level >= PYREX_LOG_DEBUG) WAIT_UNTIL(is_inside(lines));
  pyrex_engine_free(engine);
  lines_t told = *lines;
  memset(lines, 0x5a, sizeof *lines);
  free(lines);
  CHECK_STATUS(PYREX_CLOSED, read_answer(request).status);
  pyrex_request_free(request);
  return told;
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  lines_t told = listen(model, PYREX_LOG_DEBUG);
  CHECK(told.num_lines[PYREX_LOG_INFO] > 0 && told.num_lines[PYREX_LOG_DEBUG] > 0);
  CHECK(told.num_lines[PYREX_LOG_TRACE] == 0);
  told = listen(model, 0);
  CHECK(told.num_lines[PYREX_LOG_INFO] > 0 && told.num_lines[PYREX_LOG_DEBUG] == 0);
  told = listen(model, PYREX_LOG_ERROR);
  CHECK(told.num_lines[PYREX_LOG_INFO] == 0);

  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.log = on_line;
  options.log_level = 6;
  pyrex_engine_t *engine = NULL;
  REFUSED(PYREX_INVALID_REQUEST, "log_level is 6", pyrex_engine_open(model, &options, &engine));
  options.log_level = -1;
  REFUSED(PYREX_INVALID_REQUEST, "log_level is -1", pyrex_engine_open(model, &options, &engine));
  return 0;
}
