/* files MODEL: an engine from files that the program has mapped; each is released exactly once, whatever happens. */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NUM_FILES = 6 };
static const char *const names[NUM_FILES] = {"config.json",       "tokenizer.json",        "tokenizer_config.json",
                                             "model.safetensors", "processor_config.json", "chat_template.jinja"};

typedef struct {
  void *bytes;
  size_t len;
  int num_releases;
} mapped_t;

static mapped_t mapped[NUM_FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Called from any thread. */
static void release(void *release_data) {
  mapped_t *file = release_data;
  pthread_mutex_lock(&lock);
  CHECK(file->num_releases++ == 0);
  CHECK(file->len == 0 || munmap(file->bytes, file->len) == 0);
  pthread_mutex_unlock(&lock);
}

static void map_all(const char *model, pyrex_file_t *files) {
  for (int i = 0; i < NUM_FILES; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", model, names[i]);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    CHECK(descriptor >= 0 && fstat(descriptor, &about) == 0);
    mapped[i].len = (size_t)about.st_size;
    mapped[i].bytes = mmap(NULL, mapped[i].len, PROT_READ, MAP_PRIVATE, descriptor, 0);
    CHECK(mapped[i].bytes != MAP_FAILED);
    mapped[i].num_releases = 0;
    close(descriptor);
    files[i] = (pyrex_file_t){names[i], mapped[i].bytes, mapped[i].len, release, &mapped[i]};
  }
}

static int num_released(void) {
  int num = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < NUM_FILES; i++) num += mapped[i].num_releases;
  pthread_mutex_unlock(&lock);
  return num;
}

/* Waits for all of them: the last may come a moment after the engine was freed. */
static void check_released(void) { WAIT_UNTIL(num_released() == NUM_FILES); }

static void check_refused(const pyrex_file_t *files, pyrex_status_t expected, const char *words,
                          const pyrex_engine_options_t *options) {
  pyrex_engine_t *engine = (pyrex_engine_t *)&engine;
  CHECK_STATUS(expected, pyrex_engine_open_files(files, NUM_FILES, options, &engine));
  if (!strstr(pyrex_last_error_message(), words)) fail_at(__FILE__, __LINE__, words, "is not said");
  CHECK(engine == NULL);
  check_released();
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  pyrex_file_t files[NUM_FILES];
  pyrex_engine_t *engine = NULL;

  map_all(model, files);
  OK(pyrex_engine_open_files(files, NUM_FILES, NULL, &engine));
  memset(files, 0, sizeof files);
  pyrex_prompt_t *prompt = ask("Describe this image.");
  pyrex_request_t *request = submit(engine, prompt, 2);
  CHECK(read_answer(request).kind == PYREX_EVENT_FINISHED);
  /* One that is cut off holds no file for longer than it takes to end. */
  pyrex_request_t *cut_off = submit(engine, prompt, 1000);
  pyrex_prompt_free(prompt);
  pyrex_engine_free(engine);
  check_released();
  pyrex_request_free(request);
  pyrex_request_free(cut_off);

  map_all(model, files);
  files[0].name = "other.json";
  check_refused(files, PYREX_INVALID_MODEL, "config.json", NULL);

  map_all(model, files);
  files[3].len /= 2;
  mapped[3].len = 0;
  check_refused(files, PYREX_INVALID_MODEL, "", NULL);
  munmap(mapped[3].bytes, files[3].len * 2);

  map_all(model, files);
  files[2].name = NULL;
  check_refused(files, PYREX_NULL_ARGUMENT, "name", NULL);

  map_all(model, files);
  files[4].name = "\xff.json";
  check_refused(files, PYREX_INVALID_REQUEST, "UTF-8", NULL);

  map_all(model, files);
  files[1].bytes = NULL;
  check_refused(files, PYREX_NULL_ARGUMENT, "tokenizer.json", NULL);

  map_all(model, files);
  files[5].name = "config.json";
  pyrex_engine_t *twice = NULL;
  CHECK(pyrex_engine_open_files(files, NUM_FILES, NULL, &twice) != PYREX_OK && twice == NULL);
  check_released();

  pyrex_engine_options_t options = {0};
  options.struct_size = 7;
  map_all(model, files);
  check_refused(files, PYREX_INVALID_REQUEST, "struct_size", &options);

  options.struct_size = sizeof options;
  options.device = "abacus";
  map_all(model, files);
  check_refused(files, PYREX_INVALID_REQUEST, "abacus", &options);

  map_all(model, files);
  CHECK_STATUS(PYREX_NULL_ARGUMENT, pyrex_engine_open_files(files, NUM_FILES, NULL, NULL));
  check_released();

  /* No files at all, and files that need no release. */
  CHECK_STATUS(PYREX_INVALID_MODEL, pyrex_engine_open_files(NULL, 0, NULL, &engine));
  map_all(model, files);
  for (int i = 0; i < NUM_FILES; i++) files[i].release = NULL;
  OK(pyrex_engine_open_files(files, NUM_FILES, NULL, &engine));
  pyrex_engine_free(engine);
  return 0;
}
