/*
 * Many requests at once on one thread: server_loop [MODEL], with lines on standard input.
 *
 *     What is a circle?     asks; the first is request 1, the next request 2
 *     cancel 1              cancels request 1
 *
 * Tokens come as they are chosen, each on a line with the number of its request:
 *
 *     1: This
 *     1:  is
 *     1 finished: 17 tokens
 *
 * Every request has a descriptor that epoll watches beside standard input, as it would watch the sockets of a server. Nothing here
 * waits but epoll_wait(). At the end of the input the requests that are left are answered. Linux.
 *
 *     cc server_loop.c $(pkg-config --cflags --libs pyrex) -o server_loop
 */

#include <pyrex.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_LINE_LEN = 64 * 1024, MAX_READY = 64 };

/* A request that is live. */
typedef struct session {
  unsigned long number;
  pyrex_request_t *request;
  struct session *next;
} session_t;

typedef struct {
  pyrex_engine_t *engine;
  int epoll;
  unsigned long num_asked;
  session_t *sessions;
  char line[MAX_LINE_LEN];
  size_t line_len;
} server_t;

static void fail(const char *what, const char *message) {
  fprintf(stderr, "%s: %s\n", what, message);
  exit(1);
}

static void check(pyrex_status_t status) {
  if (status != PYREX_OK) fail(pyrex_status_name(status), pyrex_last_error_message());
}

/* Watches a descriptor; `of` comes back with it, and is NULL for standard input. */
static void watch(const server_t *server, int descriptor, session_t *of) {
  struct epoll_event event = {0};
  event.events = EPOLLIN;
  event.data.ptr = of;
  if (epoll_ctl(server->epoll, EPOLL_CTL_ADD, descriptor, &event) != 0) {
    fail("epoll_ctl", of ? "a request cannot be watched" : "standard input must be a pipe, a socket or a terminal");
  }
}

static pyrex_status_t submit(const pyrex_engine_t *engine, const char *text, pyrex_request_t **request) {
  pyrex_prompt_t *prompt;
  pyrex_status_t status = pyrex_prompt_new(&prompt);
  if (status == PYREX_OK) status = pyrex_prompt_add_turn(prompt, "user");
  if (status == PYREX_OK) status = pyrex_prompt_add_text(prompt, text, PYREX_NUL_TERMINATED);
  if (status == PYREX_OK) status = pyrex_engine_submit(engine, prompt, NULL, request);
  pyrex_prompt_free(prompt);
  return status;
}

/* What is refused, such as a line that is not UTF-8 or one request too many, is told to who asked, and is nobody else's concern. */
static void ask(server_t *server, const char *text) {
  unsigned long number = ++server->num_asked;
  pyrex_request_t *request;
  int32_t descriptor;

  pyrex_status_t status = submit(server->engine, text, &request);
  if (status != PYREX_OK) {
    printf("%lu failed: %s\n", number, pyrex_status_name(status));
    return;
  }
  check(pyrex_request_descriptor(request, &descriptor));
  session_t *made = malloc(sizeof *made);
  if (made == NULL) fail("malloc", "no memory");
  *made = (session_t){number, request, server->sessions};
  server->sessions = made;
  watch(server, descriptor, made);
}

/* The request lives on until its final event is read. */
static void cancel(const server_t *server, unsigned long number) {
  for (const session_t *at = server->sessions; at != NULL; at = at->next) {
    if (at->number == number) check(pyrex_request_cancel(at->request));
  }
}

static void end(server_t *server, session_t *ended) {
  session_t **at = &server->sessions;
  while (*at != ended) at = &(*at)->next;
  *at = ended->next;
  /* This closes its descriptor, and epoll forgets it. */
  pyrex_request_free(ended->request);
  free(ended);
}

/* On one line, whatever the text is. */
static void print_text(const char *text, size_t text_len) {
  for (size_t i = 0; i < text_len; i++) {
    if (text[i] == '\n') {
      fputs("\\n", stdout);
    } else {
      putchar(text[i]);
    }
  }
  putchar('\n');
}

static void tell(unsigned long number, const pyrex_event_t *event) {
  switch (event->kind) {
  case PYREX_EVENT_TOKEN:
    printf("%lu: ", number);
    print_text(event->text, event->text_len);
    break;
  case PYREX_EVENT_FINISHED:
    printf("%lu finished: %zu tokens\n", number, event->num_completion_tokens);
    break;
  case PYREX_EVENT_FAILED:
    printf("%lu failed: %s\n", number, pyrex_status_name(event->status));
    break;
  default: /* Later versions may have more kinds. */
    break;
  }
}

/* Reads events until there is none: only then the descriptor is quiet. */
static void read_events(server_t *server, session_t *from) {
  const pyrex_event_t *event;
  pyrex_status_t status;
  while ((status = pyrex_request_try_next(from->request, &event)) == PYREX_OK) tell(from->number, event);
  if (status == PYREX_ENDED) {
    end(server, from);
  } else if (status != PYREX_PENDING) {
    check(status);
  }
}

static void obey(server_t *server, const char *line) {
  unsigned long number;
  char rest;
  if (sscanf(line, "cancel %lu%c", &number, &rest) == 1) {
    cancel(server, number);
  } else if (*line != '\0') {
    ask(server, line);
  }
}

/* Obeys every whole line that has come; false at the end of the input. */
static int read_lines(server_t *server) {
  ssize_t num_read = read(STDIN_FILENO, server->line + server->line_len, MAX_LINE_LEN - server->line_len);
  if (num_read < 0) fail("read", "standard input cannot be read");
  if (num_read == 0) {
    /* The last line may lack its end. */
    server->line[server->line_len] = '\0';
    obey(server, server->line);
    return 0;
  }
  server->line_len += (size_t)num_read;

  char *line = server->line, *line_end;
  char *input_end = line + server->line_len;
  while ((line_end = memchr(line, '\n', (size_t)(input_end - line))) != NULL) {
    *line_end = '\0';
    obey(server, line);
    line = line_end + 1;
  }
  server->line_len = (size_t)(input_end - line);
  memmove(server->line, line, server->line_len);
  if (server->line_len == MAX_LINE_LEN) fail("standard input", "a line is too long");
  return 1;
}

int main(int argc, char **argv) {
  static server_t server;
  struct epoll_event ready[MAX_READY];
  int is_open = 1;

  check(pyrex_engine_open(argc > 1 ? argv[1] : "models/shapes", NULL, &server.engine));
  server.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (server.epoll < 0) fail("epoll_create1", "no descriptor is left");
  watch(&server, STDIN_FILENO, NULL);

  while (is_open || server.sessions != NULL) {
    int num_ready = epoll_wait(server.epoll, ready, MAX_READY, -1);
    for (int i = 0; i < num_ready; i++) {
      session_t *of = ready[i].data.ptr;
      if (of != NULL) {
        read_events(&server, of);
      } else if (!(is_open = read_lines(&server))) {
        epoll_ctl(server.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
      }
    }
    fflush(stdout);
  }

  close(server.epoll);
  pyrex_engine_free(server.engine);
  return 0;
}
