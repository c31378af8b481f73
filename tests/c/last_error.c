/* last_error MODEL: what the last failure was is known to the thread it happened on, until its next failure. */
#include "check.h"
#include <pthread.h>

static int last_is(pyrex_status_t status, const char *message) {
  return pyrex_last_error_status() == status && strcmp(pyrex_last_error_message(), message) == 0;
}

static void *on_another_thread(void *unused) {
  CHECK(last_is(PYREX_OK, ""));
  CHECK_STATUS(PYREX_NULL_ARGUMENT, pyrex_prompt_add_turn(NULL, "user"));
  CHECK(last_is(PYREX_NULL_ARGUMENT, "prompt is NULL"));
  return unused;
}

int main(int argc, char **argv) {
  CHECK(last_is(PYREX_OK, ""));
  CHECK_STATUS(PYREX_NULL_ARGUMENT, pyrex_prompt_new(NULL));
  CHECK(last_is(PYREX_NULL_ARGUMENT, "prompt is NULL"));

  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, on_another_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
  CHECK_STATUS(PYREX_NULL_ARGUMENT, pyrex_engine_open(NULL, NULL, NULL));
  CHECK(last_is(PYREX_NULL_ARGUMENT, "engine is NULL"));

  /* What works leaves it alone, and so do a wait that was too short and the end of a request. */
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 100);
  const pyrex_event_t *event;
  pyrex_status_t status;
  while ((status = pyrex_request_try_next(request, &event)) == PYREX_OK) {
  }
  CHECK_STATUS(PYREX_PENDING, status);
  OK(pyrex_request_cancel(request));
  check_cancelled(request);
  CHECK(last_is(PYREX_NULL_ARGUMENT, "engine is NULL"));
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);

  /* The next failure replaces it. */
  pyrex_engine_t *none = engine;
  CHECK_STATUS(PYREX_INVALID_MODEL, pyrex_engine_open("/nowhere", NULL, &none));
  CHECK(none == NULL && pyrex_last_error_status() == PYREX_INVALID_MODEL);
  CHECK(strstr(pyrex_last_error_message(), "/nowhere") != NULL);
  pyrex_engine_free(engine);

  CHECK(strcmp(pyrex_status_name(PYREX_INVALID_MODEL), "invalid_model") == 0);
  CHECK(strcmp(pyrex_status_name(PYREX_ENDED), "ended") == 0);
  CHECK(strcmp(pyrex_status_name(-1), "unknown") == 0 && strcmp(pyrex_status_name(INT32_MAX), "unknown") == 0);
  return 0;
}
