/* eventfd MODEL [N]: one thread waits with epoll for the events of N requests. */
#include "check.h"
#include <sys/epoll.h>
#include <unistd.h>

enum { NUM_TOKENS = 6 };

typedef struct {
  pyrex_request_t *request;
  int num_tokens;
  int kind;
} job_t;

/* Reads what is there. Returns how many events that were; ends the job when there are no more. */
static int read_events(int epoll, job_t *job) {
  const pyrex_event_t *event;
  pyrex_status_t status;
  int num_events = 0;
  while ((status = pyrex_request_try_next(job->request, &event)) == PYREX_OK) {
    num_events += 1;
    job->num_tokens += event->kind == PYREX_EVENT_TOKEN;
    job->kind = event->kind;
  }
  if (status == PYREX_ENDED) {
    int32_t descriptor;
    OK(pyrex_request_descriptor(job->request, &descriptor));
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, NULL) == 0);
    pyrex_request_free(job->request);
    job->request = NULL;
  } else {
    CHECK_STATUS(PYREX_PENDING, status);
  }
  return num_events;
}

int main(int argc, char **argv) {
  pyrex_engine_t *engine = open_engine(argument(argc, argv, 1, "the folder of a model"));
  int num_jobs = argc > 2 ? atoi(argv[2]) : 100;
  pyrex_prompt_t *prompt = ask("Describe this image.");
  job_t *jobs = calloc((size_t)num_jobs, sizeof *jobs);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  CHECK(jobs != NULL && epoll >= 0);

  for (int i = 0; i < num_jobs; i++) {
    jobs[i].request = submit(engine, prompt, NUM_TOKENS);
    int32_t descriptor, again;
    OK(pyrex_request_descriptor(jobs[i].request, &descriptor));
    OK(pyrex_request_descriptor(jobs[i].request, &again));
    CHECK(descriptor == again);
    struct epoll_event interest = {.events = EPOLLIN, .data = {.ptr = &jobs[i]}};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &interest) == 0);
    if (i % 7 == 0) OK(pyrex_request_cancel(jobs[i].request));
  }

  int num_left = num_jobs, num_events = 0, num_idle = 0;
  while (num_left > 0) {
    struct epoll_event ready[8];
    int num_ready = epoll_wait(epoll, ready, 8, 300000);
    CHECK(num_ready > 0);
    for (int i = 0; i < num_ready; i++) {
      job_t *job = ready[i].data.ptr;
      int found = read_events(epoll, job);
      num_events += found;
      num_idle += found == 0;
      num_left -= job->request == NULL;
    }
  }

  /* It may be readable once more than there are events, but not for as long as there are none. */
  CHECK(num_idle <= num_events + num_jobs);
  for (int i = 0; i < num_jobs; i++) {
    if (jobs[i].kind == PYREX_EVENT_FAILED && i % 7 == 0) continue;
    CHECK(jobs[i].kind == PYREX_EVENT_FINISHED && jobs[i].num_tokens == NUM_TOKENS);
  }

  /* A descriptor that is made once all is there can be read as well, and none has anything to read after the end. */
  pyrex_request_t *request = submit(engine, prompt, NUM_TOKENS);
  check_empty(engine);
  int32_t descriptor;
  OK(pyrex_request_descriptor(request, &descriptor));
  struct epoll_event interest = {.events = EPOLLIN};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &interest) == 0);
  CHECK(epoll_wait(epoll, &interest, 1, 0) == 1);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  const pyrex_event_t *event;
  for (int i = 0; epoll_wait(epoll, &interest, 1, 0) == 1; i++) {
    CHECK(i == 0);
    CHECK_STATUS(PYREX_ENDED, pyrex_request_try_next(request, &event));
  }
  pyrex_request_free(request);

  close(epoll);
  free(jobs);
  pyrex_prompt_free(prompt);
  check_empty(engine);
  pyrex_engine_free(engine);
  return 0;
}
