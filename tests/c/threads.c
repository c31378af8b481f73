/* threads MODEL [N]: 16 threads ask N times each at one engine; no request is lost, and every answer is right. */
#include "check.h"
#include <pthread.h>

enum { NUM_THREADS = 16, NUM_PROMPTS = 3, NUM_TOKENS = 4 };

static pyrex_engine_t *engine;
static pyrex_prompt_t *prompts[NUM_PROMPTS];
static char expected[NUM_PROMPTS][4096];
static int num_requests = 200;

/* The request of each thread that others may cancel: nobody may be in a call on it while it is freed. */
static struct {
  pthread_mutex_t lock;
  pyrex_request_t *request;
} shared[NUM_THREADS];

static void share(int thread, pyrex_request_t *request) {
  pthread_mutex_lock(&shared[thread].lock);
  shared[thread].request = request;
  pthread_mutex_unlock(&shared[thread].lock);
}

static void cancel_of(int thread) {
  pthread_mutex_lock(&shared[thread].lock);
  if (shared[thread].request) OK(pyrex_request_cancel(shared[thread].request));
  pthread_mutex_unlock(&shared[thread].lock);
}

/* The answer is right, or somebody cancelled. */
static void check_answer(answer_t answer, int prompt, int may_be_cancelled) {
  if (may_be_cancelled && answer.kind == PYREX_EVENT_FAILED) {
    CHECK_STATUS(PYREX_CANCELLED, answer.status);
    return;
  }
  CHECK(answer.kind == PYREX_EVENT_FINISHED && answer.num_tokens == NUM_TOKENS);
  CHECK(strcmp(answer.text, expected[prompt]) == 0);
}

static void *work(void *arg) {
  int thread = (int)(intptr_t)arg;
  const pyrex_event_t *event;
  for (int i = 0; i < num_requests; i++) {
    int prompt = (thread + i) % NUM_PROMPTS;
    pyrex_request_t *request = submit(engine, prompts[prompt], NUM_TOKENS);
    switch (i % 5) {
      case 0: /* Free it at once. */
        break;
      case 1: /* Read a little, then free it. */
        OK(pyrex_request_next(request, PYREX_FOREVER, &event));
        CHECK(event->kind == PYREX_EVENT_STARTED);
        break;
      case 2: /* Cancel it, then read. */
        OK(pyrex_request_cancel(request));
        check_answer(read_answer(request), prompt, 1);
        break;
      case 3: /* Let others cancel it, and cancel a neighbour's. */
        share(thread, request);
        cancel_of((thread + 1) % NUM_THREADS);
        check_answer(read_answer(request), prompt, 1);
        share(thread, NULL);
        break;
      default: /* Read all of it. */
        check_answer(read_answer(request), prompt, 0);
    }
    pyrex_request_free(request);
  }
  return NULL;
}

int main(int argc, char **argv) {
  static const char *texts[NUM_PROMPTS] = {"Describe this image.", "What color is it?", "How many are there?"};
  engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  if (argc > 2) num_requests = atoi(argv[2]);
  for (int i = 0; i < NUM_PROMPTS; i++) {
    prompts[i] = ask(texts[i]);
    pyrex_request_t *request = submit(engine, prompts[i], NUM_TOKENS);
    strcpy(expected[i], read_answer(request).text);
    pyrex_request_free(request);
  }

  pthread_t threads[NUM_THREADS];
  for (int i = 0; i < NUM_THREADS; i++) pthread_mutex_init(&shared[i].lock, NULL);
  for (int i = 0; i < NUM_THREADS; i++) {
    CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
  }
  for (int i = 0; i < NUM_THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);

  check_empty(engine);
  for (int i = 0; i < NUM_PROMPTS; i++) pyrex_prompt_free(prompts[i]);
  pyrex_engine_free(engine);
  return 0;
}
