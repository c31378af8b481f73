/* frees MODEL: engine, prompt and request may be freed in any order, at any time. */
#include "check.h"

typedef struct {
  pyrex_engine_t *engine;
  pyrex_prompt_t *prompt;
  pyrex_request_t *request;
} objects_t;

static void free_one(objects_t *objects, char which) {
  switch (which) {
    case 'e':
      pyrex_engine_free(objects->engine);
      objects->engine = NULL;
      break;
    case 'p':
      pyrex_prompt_free(objects->prompt);
      objects->prompt = NULL;
      break;
    default:
      pyrex_request_free(objects->request);
      objects->request = NULL;
  }
}

/* An engine that is gone ends its requests, and they can still be read. */
static void check_closed(objects_t *objects) {
  answer_t answer = read_answer(objects->request);
  CHECK(answer.kind == PYREX_EVENT_FAILED);
  CHECK_STATUS(PYREX_CLOSED, answer.status);
  void *user_data;
  OK(pyrex_request_user_data(objects->request, &user_data));
  OK(pyrex_request_cancel(objects->request));
}

static void in_order(const char *model, const char *order) {
  objects_t objects = {open_engine(model), ask("Describe this image."), NULL};
  objects.request = submit(objects.engine, objects.prompt, 1000);
  for (int i = 0; i < 3; i++) {
    free_one(&objects, order[i]);
    if (order[i] == 'e' && objects.request) check_closed(&objects);
    if (objects.engine && objects.request) {
      const pyrex_event_t *event;
      OK(pyrex_request_next(objects.request, PYREX_FOREVER, &event));
    }
    if (objects.engine && !objects.request) check_empty(objects.engine);
  }
}

/* Many requests at once, in every phase, none of them read. */
static void with_many(const char *model, int engine_first) {
  pyrex_engine_t *engine = open_engine(model);
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *requests[40];
  for (int i = 0; i < 40; i++) requests[i] = submit(engine, prompt, 1000);
  pyrex_prompt_free(prompt);
  if (engine_first) pyrex_engine_free(engine);
  for (int i = 0; i < 40; i++) pyrex_request_free(requests[i]);
  if (!engine_first) check_empty(engine);
  if (!engine_first) pyrex_engine_free(engine);
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  static const char *const orders[] = {"epr", "erp", "per", "pre", "rep", "rpe"};
  for (int i = 0; i < 6; i++) in_order(model, orders[i]);
  with_many(model, 1);
  with_many(model, 0);

  /* NULL is fine everywhere. */
  pyrex_engine_free(NULL);
  pyrex_prompt_free(NULL);
  pyrex_request_free(NULL);
  pyrex_string_free(NULL);
  pyrex_comparison_free(NULL);
  return 0;
}
