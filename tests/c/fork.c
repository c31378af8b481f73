/* fork MODEL: in a forked process the objects say so and do nothing, and the process that made them goes on. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKED(call) CHECK_STATUS(PYREX_FORKED, call)

static void ring(void *user_data) { (void)user_data; }

/*
 * Two functions that the engine's threads are in when the process is forked. In the child those threads are gone: whoever
 * waited there until they leave would wait for ever. (No function of a real program should hold the engine up like this.)
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t main_thread;
static int holds_notify = 1, holds_log, in_notify, in_log;

static void hold(const int *holds, int *is_in) {
  if (pthread_equal(pthread_self(), main_thread)) return;
  pthread_mutex_lock(&lock);
  *is_in = *holds;
  pthread_cond_broadcast(&changed);
  while (*holds) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static void hold_notify(void *user_data) {
  (void)user_data;
  hold(&holds_notify, &in_notify);
}

static void hold_log(void *log_data, int32_t level, const char *target, const char *message) {
  (void)log_data, (void)level, (void)target, (void)message;
  hold(&holds_log, &in_log);
}

static void set_holds(int to) {
  pthread_mutex_lock(&lock);
  holds_notify = holds_log = to;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void wait_until_in(const int *is_in) {
  pthread_mutex_lock(&lock);
  while (!*is_in) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static void use_engine(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  pyrex_engine_info_t info = {0};
  info.struct_size = sizeof info;
  FORKED(pyrex_engine_info(engine, &info));
  pyrex_stats_t stats = {0};
  stats.struct_size = sizeof stats;
  FORKED(pyrex_engine_stats(engine, &stats));
  char *text = (char *)&info;
  FORKED(pyrex_engine_stats_json(engine, &text));
  FORKED(pyrex_engine_probe(engine, 1000));
  FORKED(pyrex_engine_drain(engine, 1000, NULL));
  CHECK(text == NULL);
  uint32_t token_ids[8];
  size_t num_tokens;
  FORKED(pyrex_engine_tokenize(engine, "red", 3, token_ids, 8, &num_tokens));
  FORKED(pyrex_engine_detokenize(engine, token_ids, 0, &text, NULL));
  FORKED(pyrex_engine_encode(engine, prompt, token_ids, 8, &num_tokens, NULL));
  FORKED(pyrex_engine_apply_template(engine, prompt, &text, NULL));
  pyrex_request_t *request = (pyrex_request_t *)&info;
  FORKED(pyrex_engine_submit(engine, prompt, NULL, &request));
  FORKED(pyrex_engine_submit_json(engine, "{\"prompt\": \"a\"}", PYREX_NUL_TERMINATED, NULL, &request));
  CHECK(request == NULL && text == NULL);
}

static void use_request(pyrex_request_t *request) {
  const pyrex_event_t *event;
  FORKED(pyrex_request_next(request, PYREX_FOREVER, &event));
  FORKED(pyrex_request_try_next(request, &event));
  FORKED(pyrex_request_set_notify(request, ring));
  int32_t descriptor;
  FORKED(pyrex_request_descriptor(request, &descriptor));
  void *user_data;
  FORKED(pyrex_request_user_data(request, &user_data));
  FORKED(pyrex_request_cancel(request));
  CHECK(strstr(pyrex_last_error_message(), "fork") != NULL);
}

static void in_the_child(pyrex_engine_t *engine, pyrex_prompt_t *prompt, pyrex_request_t *request) {
  alarm(60); /* Ends it if something waits. */
  use_engine(engine, prompt);
  use_request(request);
  /* A prompt has no threads, and works. */
  OK(pyrex_prompt_add_text(prompt, "Please.", 7));
  pyrex_prompt_free(prompt);
  pyrex_request_free(request);
  pyrex_engine_free(engine);
  /* What most programs fork for. */
  execlp("true", "true", (char *)NULL);
  _exit(1);
}

int main(int argc, char **argv) {
  main_thread = pthread_self();
  pyrex_engine_options_t options = {0};
  options.struct_size = sizeof options;
  options.log = hold_log;
  options.log_level = PYREX_LOG_TRACE;
  pyrex_engine_t *engine = NULL;
  OK(pyrex_engine_open(argument(argc, argv, 1, "the folder of a model"), &options, &engine));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 40);
  const pyrex_event_t *event;
  do {
    OK(pyrex_request_next(request, PYREX_FOREVER, &event));
  } while (event->kind != PYREX_EVENT_TOKEN);
  OK(pyrex_request_set_notify(request, hold_notify));
  wait_until_in(&in_notify);
  set_holds(1);
  pyrex_request_t *other = submit(engine, prompt, 2);
  wait_until_in(&in_log);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) in_the_child(engine, prompt, request);
  int how;
  CHECK(waitpid(child, &how, 0) == child);
  CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
  set_holds(0);

  answer_t answer = read_answer(request);
  CHECK(answer.kind == PYREX_EVENT_FINISHED && answer.num_tokens == 39);
  CHECK(read_answer(other).kind == PYREX_EVENT_FINISHED);
  pyrex_request_free(request);
  pyrex_request_free(other);
  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
