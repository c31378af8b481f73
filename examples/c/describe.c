/*
 * A picture in, its description out: describe [MODEL] [IMAGE]
 *
 *     cc describe.c $(pkg-config --cflags --libs pyrex) -o describe
 */

#include <pyrex.h>
#include <stdio.h>
#include <stdlib.h>

static void check(pyrex_status_t status) {
  if (status == PYREX_OK) return;
  fprintf(stderr, "%s: %s\n", pyrex_status_name(status), pyrex_last_error_message());
  exit(1);
}

int main(int argc, char **argv) {
  const char *model = argc > 1 ? argv[1] : "models/shapes";
  const char *image = argc > 2 ? argv[2] : "models/shapes/examples/red_circle.png";
  pyrex_engine_t *engine;
  pyrex_prompt_t *prompt;
  pyrex_request_t *request;
  const pyrex_event_t *event;
  pyrex_status_t status = PYREX_OK;

  check(pyrex_engine_open(model, NULL, &engine));
  check(pyrex_prompt_new(&prompt));
  check(pyrex_prompt_add_turn(prompt, "user"));
  check(pyrex_prompt_add_image_file(prompt, image));
  check(pyrex_prompt_add_text(prompt, "Describe this image.", PYREX_NUL_TERMINATED));
  check(pyrex_engine_submit(engine, prompt, NULL, &request));
  while (pyrex_request_next(request, PYREX_FOREVER, &event) == PYREX_OK) {
    status = event->status;
    if (status == PYREX_OK) fputs(event->text, stdout);
    else fprintf(stderr, "%s: %s\n", pyrex_status_name(status), event->text);
    fflush(stdout);
  }
  puts("");
  pyrex_request_free(request);
  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
  return status == PYREX_OK ? 0 : 1;
}
