/* notify MODEL [N]: a function that is told of events, for hosts with a loop of their own. */
#include "check.h"
#include <pthread.h>

enum { NUM_TOKENS = 6 };

/* Woken by the engine; on the heap so that a call after pyrex_request_free() is found. */
typedef struct {
  pthread_mutex_t lock;
  pthread_cond_t told;
  unsigned num_calls;
  unsigned num_other_calls;
  pyrex_request_t *request;
  int32_t last_kind;
} bell_t;

static bell_t *new_bell(void) {
  bell_t *bell = calloc(1, sizeof *bell);
  CHECK(bell != NULL);
  pthread_mutex_init(&bell->lock, NULL);
  pthread_cond_init(&bell->told, NULL);
  return bell;
}

static void free_bell(bell_t *bell) {
  pthread_mutex_destroy(&bell->lock);
  pthread_cond_destroy(&bell->told);
  memset(bell, 0x5a, sizeof *bell);
  free(bell);
}

static void ring(void *user_data) {
  bell_t *bell = user_data;
  pthread_mutex_lock(&bell->lock);
  bell->num_calls += 1;
  pthread_cond_signal(&bell->told);
  pthread_mutex_unlock(&bell->lock);
}

static void ring_other(void *user_data) {
  bell_t *bell = user_data;
  pthread_mutex_lock(&bell->lock);
  bell->num_other_calls += 1;
  pthread_cond_signal(&bell->told);
  pthread_mutex_unlock(&bell->lock);
}

static unsigned num_calls(bell_t *bell) {
  pthread_mutex_lock(&bell->lock);
  unsigned found = bell->num_calls;
  pthread_mutex_unlock(&bell->lock);
  return found;
}

static pyrex_request_t *submit_with(pyrex_engine_t *engine, pyrex_prompt_t *prompt, bell_t *bell, int num_tokens) {
  pyrex_request_options_t options = {0};
  options.struct_size = sizeof options;
  options.max_tokens = (uint64_t)num_tokens;
  options.ignore_eos = 1;
  options.user_data = bell;
  pyrex_request_t *request = NULL;
  OK(pyrex_engine_submit(engine, prompt, &options, &request));
  return request;
}

/* Sleeps until told, reads what is there, and so on until the end. */
static void read_when_told(pyrex_request_t *request, bell_t *bell) {
  const pyrex_event_t *event;
  pyrex_status_t status = PYREX_PENDING;
  unsigned seen = 0;
  while (status != PYREX_ENDED) {
    pthread_mutex_lock(&bell->lock);
    while (bell->num_calls + bell->num_other_calls == seen) pthread_cond_wait(&bell->told, &bell->lock);
    seen = bell->num_calls + bell->num_other_calls;
    pthread_mutex_unlock(&bell->lock);
    while ((status = pyrex_request_try_next(request, &event)) == PYREX_OK) bell->last_kind = event->kind;
    CHECK(status == PYREX_PENDING || status == PYREX_ENDED);
  }
  CHECK(bell->last_kind == PYREX_EVENT_FINISHED);
}

static void many(pyrex_engine_t *engine, pyrex_prompt_t *prompt, int num_requests) {
  for (int i = 0; i < num_requests; i++) {
    bell_t *bell = new_bell();
    pyrex_request_t *request = submit_with(engine, prompt, bell, NUM_TOKENS);
    OK(pyrex_request_set_notify(request, ring));
    if (i % 3 == 0) OK(pyrex_request_set_notify(request, ring_other));
    /* Every second is freed while the engine may be calling: nobody is called once that has returned. */
    if (i % 2 == 0) read_when_told(request, bell);
    pyrex_request_free(request);
    free_bell(bell);
  }
}

static void told_of_what_came_before(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  bell_t *bell = new_bell();
  pyrex_request_t *request = submit_with(engine, prompt, bell, NUM_TOKENS);
  check_empty(engine);
  CHECK(num_calls(bell) == 0);
  OK(pyrex_request_set_notify(request, ring));
  CHECK(num_calls(bell) >= 1);
  read_when_told(request, bell);
  /* NULL tells nobody. */
  OK(pyrex_request_set_notify(request, NULL));
  pyrex_request_free(request);
  free_bell(bell);
}

static pthread_t main_thread;

static void ring_and_linger(void *user_data) {
  if (pthread_equal(pthread_self(), main_thread)) return;
  ring(user_data);
  linger();
  ring(user_data);
}

/* pyrex_request_free() waits for the call that is under way: what it uses may go behind that. */
static void freed_during_a_call(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  bell_t *bell = new_bell();
  pyrex_request_t *request = submit_with(engine, prompt, bell, 1000);
  OK(pyrex_request_set_notify(request, ring_and_linger));
  WAIT_UNTIL(num_calls(bell) % 2 == 1);
  pyrex_request_free(request);
  CHECK(num_calls(bell) % 2 == 0);
  free_bell(bell);
}

/* Reads without waiting, on the engine's thread, and frees the request when it has ended. */
static void read_and_free(void *user_data) {
  bell_t *bell = user_data;
  const pyrex_event_t *event;
  pthread_mutex_lock(&bell->lock);
  pyrex_status_t status = PYREX_PENDING;
  while (bell->request && (status = pyrex_request_try_next(bell->request, &event)) == PYREX_OK) {
    CHECK(event->user_data == bell);
    bell->last_kind = event->kind;
  }
  if (status == PYREX_ENDED) {
    pyrex_request_free(bell->request);
    bell->request = NULL;
    pthread_cond_signal(&bell->told);
  }
  pthread_mutex_unlock(&bell->lock);
}

static void freed_from_inside(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  bell_t *bell = new_bell();
  bell->request = submit_with(engine, prompt, bell, NUM_TOKENS);
  OK(pyrex_request_set_notify(bell->request, read_and_free));
  pthread_mutex_lock(&bell->lock);
  while (bell->request) pthread_cond_wait(&bell->told, &bell->lock);
  CHECK(bell->last_kind == PYREX_EVENT_FINISHED);
  pthread_mutex_unlock(&bell->lock);
  free_bell(bell);
}

static void cancel_inside(void *user_data) {
  bell_t *bell = user_data;
  OK(pyrex_request_cancel(bell->request));
}

static void cancelled_from_inside(pyrex_engine_t *engine, pyrex_prompt_t *prompt) {
  bell_t *bell = new_bell();
  bell->request = submit_with(engine, prompt, bell, 1000);
  OK(pyrex_request_set_notify(bell->request, cancel_inside));
  check_cancelled(bell->request);
  pyrex_request_free(bell->request);
  free_bell(bell);
}

int main(int argc, char **argv) {
  main_thread = pthread_self();
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  many(engine, prompt, argc > 2 ? atoi(argv[2]) : 60);
  told_of_what_came_before(engine, prompt);
  freed_during_a_call(engine, prompt);
  cancelled_from_inside(engine, prompt);
  freed_from_inside(engine, prompt);
  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
