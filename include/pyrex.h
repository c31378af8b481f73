/*
 * libpyrex: text and images in, tokens out, inside your process. Generated from pyrex-capi/src by `make header`: do not edit.
 *
 *     pyrex_engine_open(model, NULL, &engine)          once; loads the model, starts the engine's threads
 *     pyrex_prompt_new(&prompt), _add_turn, _add_text, _add_image
 *     pyrex_engine_submit(engine, prompt, NULL, &request)     from any thread; returns at once
 *     pyrex_request_next(request, PYREX_FOREVER, &event)      until it says PYREX_ENDED
 *     pyrex_request_free, pyrex_prompt_free, pyrex_engine_free  in any order
 *
 * What holds for every function, unless it says otherwise:
 *
 * Status.    A function returns PYREX_OK or why it failed; pyrex_last_error_message() then has a sentence about it, on the same
 *            thread. NULL, zero, negative and huge arguments are failures with a status, and so is a panic inside of Pyrex, which
 *            Rust besides writes to stderr.
 * Failure.   When it fails, nothing is written, but that the pointer to a new object is NULL.
 * Ownership. An object that a function gives belongs to the caller and has a function named `_free`, which takes NULL too and
 *            must be called once. What a function is given is copied, and may go when the function has returned.
 * Threads.   Objects may be used from any thread, and from several at once. Two exceptions: one thread at a time reads the events
 *            of a request, and nobody may be in a call on an object while it is freed.
 * Blocking.  A function that can block says so.
 * Text.      All text is UTF-8. Text with a length beside it need not be NUL-terminated; the length may be PYREX_NUL_TERMINATED.
 * Structs.   A struct that begins with `struct_size` may grow. Zero it, set `struct_size` to its size, set what you need: a program
 *            compiled against an older header goes on working with a newer library.
 * Callbacks. A function of yours must not unwind: no C++ exception, no longjmp().
 * Fork.      An object works only in the process that made it; elsewhere its functions say PYREX_FORKED. Fork first, then open.
 * Pointers.  A pointer is NULL or points to what its type and length say. This alone cannot be checked, and is yours to see to.
 */


#ifndef PYREX_H
#define PYREX_H

#include <stddef.h>
#include <stdint.h>

/**
 * As a length of text: up to its NUL.
 */
#define PYREX_NUL_TERMINATED SIZE_MAX

/**
 * The version of this binary interface. Functions and constants may be added, and fields at the end of structs, under the same
 * version; whatever would break a compiled program changes it, and with it the name of the shared library.
 */
#define PYREX_ABI_VERSION 1

/**
 * A level of the log: what went wrong.
 */
#define PYREX_LOG_ERROR 1

/**
 * A level of the log: what may go wrong.
 */
#define PYREX_LOG_WARN 2

/**
 * A level of the log: each request, when it ends.
 */
#define PYREX_LOG_INFO 3

/**
 * A level of the log: the phases of each request.
 */
#define PYREX_LOG_DEBUG 4

/**
 * A level of the log: everything.
 */
#define PYREX_LOG_TRACE 5

/**
 * A kind of event: the prompt is encoded and waits for its turn.
 */
#define PYREX_EVENT_STARTED 1

/**
 * A kind of event: one token was chosen.
 */
#define PYREX_EVENT_TOKEN 2

/**
 * A kind of event: all completions came to their ends. Nothing comes after it.
 */
#define PYREX_EVENT_FINISHED 3

/**
 * A kind of event: the request ended early. Nothing comes after it.
 */
#define PYREX_EVENT_FAILED 4

/**
 * A finish reason: it goes on.
 */
#define PYREX_FINISH_NONE 0

/**
 * A finish reason: a stop token or stop string, or what the answer was held to is complete.
 */
#define PYREX_FINISH_STOP 1

/**
 * A finish reason: `max_tokens`, or the longest sequence of the engine.
 */
#define PYREX_FINISH_LENGTH 2

/**
 * As a timeout: however long it takes.
 */
#define PYREX_FOREVER -1



/**
 * A finding: both dumps have the tensor, and its figures are told.
 */
#define PYREX_COMPARED_FIGURES 0

/**
 * A finding: both have it, in other shapes.
 */
#define PYREX_COMPARED_SHAPES 1

/**
 * A finding: only ours has it.
 */
#define PYREX_COMPARED_ONLY_OURS 2

/**
 * A finding: only theirs has it.
 */
#define PYREX_COMPARED_ONLY_THEIRS 3

/**
 * How a call ended. Numbers are fixed for good; later versions may add some, so treat one that you do not know as a failure.
 */
enum pyrex_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It worked.
   */
  PYREX_OK = 0,
  /**
   * The request itself is wrong: its prompt, an image, a parameter, an option.
   */
  PYREX_INVALID_REQUEST = 1,
  /**
   * The model is wrong: a missing, left-over or misshaped tensor, a bad config, a damaged file.
   */
  PYREX_INVALID_MODEL = 2,
  /**
   * Well formed, but not something this build can do.
   */
  PYREX_UNSUPPORTED = 3,
  /**
   * The queue is full; try again later.
   */
  PYREX_OVERLOADED = 4,
  /**
   * It was cancelled.
   */
  PYREX_CANCELLED = 5,
  /**
   * The deadline passed.
   */
  PYREX_DEADLINE_EXCEEDED = 6,
  /**
   * No memory is left for it.
   */
  PYREX_OUT_OF_MEMORY = 7,
  /**
   * The device failed or is not there.
   */
  PYREX_DEVICE = 8,
  /**
   * The operating system refused a file, a thread or a descriptor.
   */
  PYREX_IO = 9,
  /**
   * The engine is closed, or drains, and takes no more requests.
   */
  PYREX_CLOSED = 10,
  /**
   * A broken invariant of Pyrex: please report it.
   */
  PYREX_INTERNAL = 11,
  /**
   * A pointer is NULL that must not be.
   */
  PYREX_NULL_ARGUMENT = 100,
  /**
   * Pyrex panicked and caught it: please report it. The engine that was called is closed; others are not touched.
   */
  PYREX_PANIC = 101,
  /**
   * The object was made before this process was forked: only the process that made it can use it.
   */
  PYREX_FORKED = 102,
  /**
   * Another thread reads this request right now.
   */
  PYREX_BUSY = 103,
  /**
   * No event yet. Not a failure: pyrex_last_error_message() does not change.
   */
  PYREX_PENDING = 200,
  /**
   * The final event was read; none will ever follow. Not a failure either.
   */
  PYREX_ENDED = 201,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pyrex_status_t pyrex_status_t;
#else
typedef int32_t pyrex_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Two dumps, tensor by tensor. Never changes, and may be read from any number of threads at once.
 */
typedef struct pyrex_comparison_t pyrex_comparison_t;

/**
 * A model that answers requests, with threads of its own. May be used from any number of threads at once.
 */
typedef struct pyrex_engine_t pyrex_engine_t;

/**
 * What is asked: a conversation of texts and images, plain text, or token ids. Belongs to no engine, and may be used with several.
 */
typedef struct pyrex_prompt_t pyrex_prompt_t;

/**
 * A request that was submitted. One thread reads its events at a time; any thread may cancel it.
 */
typedef struct pyrex_request_t pyrex_request_t;

/**
 * Told how many bytes of the weights were taken, and how many there are. Anything but 0 ends the opening, with
 * PYREX_CANCELLED. Called on a thread of the engine while the caller waits; must not unwind.
 */
typedef int32_t (*pyrex_progress_fn)(void *progress_data, uint64_t done, uint64_t total);

/**
 * Told one line of an engine's log: its level, where it comes from, and what it says. The texts are valid during the call.
 * Called on the engine's threads, several at a time; must neither block nor unwind.
 */
typedef void (*pyrex_log_fn)(void *log_data, int32_t level, const char *target, const char *message);

/**
 * How to open an engine. Zero means the default everywhere: begin with a zeroed struct and set `struct_size`.
 */
typedef struct {
  /**
   * sizeof(pyrex_engine_options_t).
   */
  size_t struct_size;
  /**
   * The device: "cpu", "cuda" or "cuda:1". NULL: "cpu".
   */
  const char *device;
  /**
   * The dtype of the activations: "f32" or "bf16". NULL: f32 on the CPU and bf16 on CUDA.
   */
  const char *dtype;
  /**
   * Threads that compute. 0: as many as there are cores.
   */
  uint64_t num_threads;
  /**
   * The longest sequence, prompt and answer together, in tokens. 0: the model's own limit or 8192, whichever is less.
   */
  uint64_t max_model_len;
  /**
   * The most tokens one step computes; a longer prompt is cut into chunks. 0: 512 on the CPU and 2048 on CUDA.
   */
  uint64_t max_batch_tokens;
  /**
   * The most sequences one step computes; later ones wait. 0: 16 on the CPU and 64 on CUDA.
   */
  uint64_t max_sequences;
  /**
   * The most requests that wait; one more is refused with PYREX_OVERLOADED. 0: 1024.
   */
  uint64_t max_waiting;
  /**
   * How many events of one request wait to be read before it pauses. 0: 256.
   */
  uint64_t max_events;
  /**
   * Bytes of the cache of keys and values. 0: by `kv_cache_fraction`.
   */
  uint64_t kv_cache_bytes;
  /**
   * The share of the memory, free once the model is loaded, that the cache may take: above 0 and up to 1.
   * 0: room for `max_sequences` of the longest length, in up to a quarter of it on the CPU and
   * three quarters on a GPU.
   */
  double kv_cache_fraction;
  /**
   * Anything but 0: a prompt that begins like an earlier one is computed anew.
   */
  int32_t no_prefix_cache;
  /**
   * The most detailed level that `log` is told. 0: PYREX_LOG_INFO.
   */
  int32_t log_level;
  /**
   * How long a request that nobody reads keeps its part of the cache, in milliseconds. 0: 1000.
   */
  uint64_t reader_timeout_ms;
  /**
   * How long one step may run before the engine counts as stuck, in milliseconds. 0: 120000.
   */
  uint64_t stuck_after_ms;
  /**
   * Told how far loading is; may end it. NULL: nobody.
   */
  pyrex_progress_fn progress;
  /**
   * Handed to `progress`.
   */
  void *progress_data;
  /**
   * Told the log of this engine. NULL: nobody. Not called any more once pyrex_engine_free() has returned.
   */
  pyrex_log_fn log;
  /**
   * Handed to `log`.
   */
  void *log_data;
  /**
   * The dtype of the vision tower's activations: "f32" or "bf16", which is faster on a GPU and less exact. NULL: "f32".
   */
  const char *vision_dtype;
  /**
   * Where tables lie of which single rows are read, such as the per-layer embeddings: "device", or "host" to spare memory of a
   * GPU. NULL: "device".
   */
  const char *tables;
} pyrex_engine_options_t;

/**
 * A file of a model in memory. This struct never grows.
 */
typedef struct {
  /**
   * Its name in the folder of the model, such as "config.json".
   */
  const char *name;
  /**
   * Its bytes. They must stay as they are until `release` is called.
   */
  const uint8_t *bytes;
  /**
   * How many.
   */
  size_t len;
  /**
   * Called when they are needed no more. NULL: they outlive the process's use of Pyrex. Must not unwind.
   */
  void (*release)(void *release_data);
  /**
   * Handed to `release`.
   */
  void *release_data;
} pyrex_file_t;

/**
 * What an engine is made of. Written by pyrex_engine_info(); set `struct_size` before.
 */
typedef struct {
  /**
   * sizeof(pyrex_engine_info_t).
   */
  size_t struct_size;
  /**
   * The family of the model, such as "gemma4". Lives as long as the engine.
   */
  const char *family;
  /**
   * Entries of the vocabulary.
   */
  uint64_t vocab_size;
  /**
   * The longest sequence, prompt and answer together.
   */
  uint64_t max_model_len;
  /**
   * The most tokens one step computes.
   */
  uint64_t max_batch_tokens;
  /**
   * The most sequences one step computes.
   */
  uint64_t max_sequences;
  /**
   * The most requests that wait.
   */
  uint64_t max_waiting;
  /**
   * How many events of one request wait to be read before it pauses.
   */
  uint64_t max_events;
  /**
   * How long loading took.
   */
  double load_ms;
  /**
   * 1 if the model reads images, else 0.
   */
  int32_t reads_images;
  /**
   * The id that stands where an image is, if it does.
   */
  uint32_t image_token_id;
  /**
   * How the checkpoint wants to be sampled; 0 where it says nothing.
   */
  float recommended_temperature;
  /**
   * As above.
   */
  float recommended_top_p;
  /**
   * As above.
   */
  uint64_t recommended_top_k;
} pyrex_engine_info_t;

/**
 * How an engine stands after its last step. Sums count from its opening. Written by pyrex_engine_stats(); set
 * `struct_size` before.
 */
typedef struct {
  /**
   * sizeof(pyrex_stats_t).
   */
  size_t struct_size;
  /**
   * Requests that wait for their turn.
   */
  uint64_t num_waiting;
  /**
   * Requests that have begun and not ended.
   */
  uint64_t num_running;
  /**
   * How many of these are paused because nobody reads their events.
   */
  uint64_t num_paused;
  /**
   * Sequences that hold blocks of the cache.
   */
  uint64_t num_leases;
  /**
   * Blocks of the cache in all.
   */
  uint64_t num_blocks;
  /**
   * Blocks that nobody holds, those with a remembered prefix included.
   */
  uint64_t num_free_blocks;
  /**
   * Blocks whose content a new prompt could find.
   */
  uint64_t num_cached_blocks;
  /**
   * Tokens of sequences that began, what a preempted one computes again included.
   */
  uint64_t prefix_tokens;
  /**
   * How many of them the cache still held.
   */
  uint64_t prefix_hit_tokens;
  /**
   * Images that steps asked for.
   */
  uint64_t image_lookups;
  /**
   * How many of them were encoded before.
   */
  uint64_t image_hits;
  /**
   * Sequences that gave their blocks to others.
   */
  uint64_t preemptions;
  /**
   * Tokens computed: of prompts, and one for each token chosen.
   */
  uint64_t computed_tokens;
  /**
   * Tokens chosen.
   */
  uint64_t generated_tokens;
  /**
   * Steps that ended well.
   */
  uint64_t num_steps;
  /**
   * Steps that failed, or that were given up because their requests were cancelled.
   */
  uint64_t num_failed_steps;
  /**
   * Tokens chosen per second, over the last ten seconds or so.
   */
  double tokens_per_second;
  /**
   * How long the last step took.
   */
  double last_step_ms;
  /**
   * How long the step that runs now has been running; 0 between steps.
   */
  double running_step_ms;
  /**
   * Where the time of all steps went: choosing what runs.
   */
  double plan_ms;
  /**
   * The vision tower.
   */
  double encode_images_ms;
  /**
   * The decoder.
   */
  double forward_ms;
  /**
   * Choosing tokens.
   */
  double sample_ms;
  /**
   * Turning them into text and telling it.
   */
  double deliver_ms;
} pyrex_stats_t;

/**
 * Added to the logit of a token. This struct never grows.
 */
typedef struct {
  /**
   * The token.
   */
  uint32_t token_id;
  /**
   * From -100 to 100.
   */
  float bias;
} pyrex_logit_bias_t;

/**
 * How a prompt is answered. Zero means the default everywhere, which is greedy decoding until the model stops: begin with a
 * zeroed struct and set `struct_size`. All that it points to is copied.
 */
typedef struct {
  /**
   * sizeof(pyrex_request_options_t).
   */
  size_t struct_size;
  /**
   * Divides the logits. 0: always take the likeliest token.
   */
  float temperature;
  /**
   * Keep the likeliest tokens up to this mass, above 0 and up to 1. 0: all.
   */
  float top_p;
  /**
   * Keep tokens at least this likely, relative to the likeliest. 0: all.
   */
  float min_p;
  /**
   * Divides the positive and multiplies the negative logits of every token of prompt and answer so far. 0: none.
   */
  float repetition_penalty;
  /**
   * Taken off the logits of every token of the answer so far, from -2 to 2.
   */
  float presence_penalty;
  /**
   * As above, as many times as the token is there.
   */
  float frequency_penalty;
  /**
   * Keep so many of the likeliest tokens. 0: all.
   */
  uint64_t top_k;
  /**
   * The tokens depend on the seed and their positions alone; used if `has_seed`.
   */
  uint64_t seed;
  /**
   * 0: a fresh seed is drawn.
   */
  int32_t has_seed;
  /**
   * Higher is served first, from -128 to 127; equals in the order they came.
   */
  int32_t priority;
  /**
   * Among the first so many tokens is no stop token.
   */
  uint64_t min_tokens;
  /**
   * The most tokens to choose, the stop token included. 0: as many as there is room for.
   */
  uint64_t max_tokens;
  /**
   * How many answers to choose. They share the computed prompt, and differ only if tokens are drawn. 0: one.
   */
  uint64_t num_completions;
  /**
   * Texts that end the answer; they are not part of it.
   */
  const char *const *stop;
  /**
   * How many.
   */
  size_t num_stop;
  /**
   * Tokens that end the answer beside the model's own; their text is not part of it.
   */
  const uint32_t *stop_token_ids;
  /**
   * How many.
   */
  size_t num_stop_token_ids;
  /**
   * Added to the logits of these tokens.
   */
  const pyrex_logit_bias_t *logit_bias;
  /**
   * How many.
   */
  size_t num_logit_bias;
  /**
   * Anything but 0: go on past the model's stop tokens, to measure.
   */
  int32_t ignore_eos;
  /**
   * Anything but 0: tell how likely each token was.
   */
  int32_t logprobs;
  /**
   * How many of the likeliest tokens to tell with it, up to 20; only with `logprobs`.
   */
  uint64_t top_logprobs;
  /**
   * The whole answer is JSON of this schema. At most one of this and the next two is not NULL.
   */
  const char *json_schema;
  /**
   * The whole answer matches this regular expression.
   */
  const char *regex;
  /**
   * The whole answer is of this grammar, in llguidance's variant of Lark.
   */
  const char *lark;
  /**
   * When the answer is of no use any more, from now: it then fails with PYREX_DEADLINE_EXCEEDED. 0: never.
   */
  uint64_t timeout_ms;
  /**
   * Only requests of the same salt share computed prefixes, so that no tenant can tell what another asked. NULL: "".
   */
  const char *cache_salt;
  /**
   * Handed back in every event and to the notify function.
   */
  void *user_data;
} pyrex_request_options_t;

/**
 * How likely a token was. This struct never grows.
 */
typedef struct {
  /**
   * The token.
   */
  uint32_t token_id;
  /**
   * The natural logarithm of its probability.
   */
  float logprob;
} pyrex_token_logprob_t;

/**
 * What happens to a request. Exactly one of PYREX_EVENT_FINISHED and PYREX_EVENT_FAILED comes, and it comes last.
 *
 * Pyrex makes it and only lends it: it is valid, with all it points to, until the next event of its request is read or the
 * request is freed. What does not belong to its kind is zero. Later versions may add fields at the end.
 */
typedef struct {
  /**
   * One of PYREX_EVENT_STARTED, PYREX_EVENT_TOKEN, PYREX_EVENT_FINISHED, PYREX_EVENT_FAILED.
   */
  int32_t kind;
  /**
   * FAILED: why; PYREX_CANCELLED if somebody wanted that. PYREX_OK otherwise.
   */
  int32_t status;
  /**
   * TOKEN: the text that is now certain; often empty, never half a character, never part of a stop string.
   * FAILED: what went wrong, in one line. Never NULL, and NUL-terminated.
   */
  const char *text;
  /**
   * Bytes of `text`, without its NUL.
   */
  size_t text_len;
  /**
   * TOKEN: which; a stop token is told too.
   */
  uint32_t token_id;
  /**
   * TOKEN: of which completion; 0 unless the request asked for several.
   */
  uint32_t completion_idx;
  /**
   * TOKEN: why it was the last of its completion, if it was. FINISHED: why the first completion ended.
   */
  int32_t finish_reason;
  /**
   * TOKEN: how likely it was, if the request asked: the natural logarithm of its probability.
   */
  float logprob;
  /**
   * TOKEN: the likeliest tokens in its place, likeliest first, if the request asked.
   */
  const pyrex_token_logprob_t *top_logprobs;
  /**
   * TOKEN: how many.
   */
  size_t num_top_logprobs;
  /**
   * STARTED: what the model will read, image placeholders included.
   */
  const uint32_t *prompt_token_ids;
  /**
   * STARTED, FINISHED: how many tokens the prompt has, its images' included.
   */
  size_t num_prompt_tokens;
  /**
   * STARTED, FINISHED: how many of them are an image's.
   */
  size_t num_image_tokens;
  /**
   * FINISHED: how many of them the cache still held from an earlier request.
   */
  size_t num_cached_tokens;
  /**
   * FINISHED: tokens chosen, stop tokens included, over all completions.
   */
  size_t num_completion_tokens;
  /**
   * FINISHED: how long loading the model took, once per engine.
   */
  double load_ms;
  /**
   * FINISHED: rendering, tokenizing, decoding and resizing.
   */
  double preprocess_ms;
  /**
   * FINISHED: from submitting to the first step that took it up.
   */
  double queue_ms;
  /**
   * FINISHED: the steps of the vision tower it took part in.
   */
  double encode_images_ms;
  /**
   * FINISHED: the decoder's steps over the prompt, up to and with the first token.
   */
  double prefill_ms;
  /**
   * FINISHED: the decoder's steps over the rest, one token at a time.
   */
  double decode_ms;
  /**
   * FINISHED: from submitting to the first token, waiting included.
   */
  double ttft_ms;
  /**
   * The pointer that was given when the request was submitted.
   */
  void *user_data;
} pyrex_event_t;

/**
 * Called when there may be an event to read: on a thread of the engine, after each event, and once from where it is set. It holds
 * up all requests of the engine, so it must be short and must not block; it may read without waiting, cancel, or free the
 * request. It must not unwind.
 */
typedef void (*pyrex_notify_fn)(void *user_data);

/**
 * What to dump. Zero means the default everywhere: begin with a zeroed struct and set `struct_size`.
 */
typedef struct {
  /**
   * sizeof(pyrex_dump_options_t).
   */
  size_t struct_size;
  /**
   * As in pyrex_engine_options_t.
   */
  const char *device;
  /**
   * As in pyrex_engine_options_t.
   */
  const char *dtype;
  /**
   * Globs over the names of tensors, such as "*layers.0.*". NULL: all tensors.
   */
  const char *const *taps;
  /**
   * How many.
   */
  size_t num_taps;
  /**
   * Greedy decode steps after the prompt.
   */
  uint64_t num_steps;
} pyrex_dump_options_t;

/**
 * One tensor of two dumps. Written by pyrex_comparison_at(); set `struct_size` before.
 */
typedef struct {
  /**
   * sizeof(pyrex_compared_t).
   */
  size_t struct_size;
  /**
   * Its name. Lives as long as the comparison.
   */
  const char *name;
  /**
   * "match", "drift", "suspicious" or "catastrophic"; NULL without figures. Lives for ever.
   */
  const char *verdict;
  /**
   * One of the PYREX_COMPARED_ constants. The figures below are 0 with all but the first.
   */
  int32_t finding;
  /**
   * 1 if it is as close as a healthy build is, else 0.
   */
  int32_t passes;
  /**
   * The cosine of the two.
   */
  double cosine;
  /**
   * |ours - theirs| / |theirs|.
   */
  double rel_l2;
  /**
   * The largest |ours - theirs| of an element.
   */
  double max_abs;
  /**
   * The largest |ours - theirs| / |theirs| of an element.
   */
  double max_rel;
  /**
   * `rel_l2` as a multiple of the reference's own noise; NaN where that is not known.
   */
  double noise_ratio;
} pyrex_compared_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the binary interface that the library has. A program compares it with PYREX_ABI_VERSION, what it was compiled with.
 */
uint32_t pyrex_abi_version(void);

/**
 * The version of Pyrex, such as "0.1.0". Never to be freed.
 */
const char *pyrex_version_string(void);

/**
 * The status of the last call on this thread that failed; PYREX_OK if none did. Calls that succeed leave it alone.
 */
pyrex_status_t pyrex_last_error_status(void);

/**
 * What the last call on this thread that failed has to say: one line that names what was expected and what was found;
 * empty if none failed. Valid until the next call on this thread that fails, or until the thread ends.
 */
const char *pyrex_last_error_message(void);

/**
 * A status as a word, such as "invalid_request"; "unknown" for a number that is none. Never to be freed.
 */
const char *pyrex_status_name(int32_t status);

/**
 * Opens the model in the folder `model` (UTF-8), as `save_pretrained` writes it, and starts the engine's threads. `options`
 * may be NULL.
 *
 * Blocks until the model is loaded; `progress` in the options can end that. Weight files are mapped, not copied: they must not
 * be rewritten or shortened while the engine lives. `*engine` is to be freed with pyrex_engine_free(), and NULL on failure.
 */
pyrex_status_t pyrex_engine_open(const char *model,
                                 const pyrex_engine_options_t *options,
                                 pyrex_engine_t **engine);

/**
 * As pyrex_engine_open(), with the files of the model in memory: `config.json`, `tokenizer.json`, `model.safetensors` and
 * whatever else the folder would have.
 *
 * The bytes are not copied. Whether this succeeds or not, the `release` of every file is called exactly once, from any thread,
 * when its bytes are needed no more; that may be a moment after pyrex_engine_free() has returned.
 */
pyrex_status_t pyrex_engine_open_files(const pyrex_file_t *files,
                                       size_t num_files,
                                       const pyrex_engine_options_t *options,
                                       pyrex_engine_t **engine);

/**
 * Tells what an engine is made of.
 */
pyrex_status_t pyrex_engine_info(const pyrex_engine_t *engine, pyrex_engine_info_t *info);

/**
 * Tests the engine by a real forward pass: it answers a prompt twice, once token by token and once reading its own answer
 * back, and both must agree. Blocks, for up to `timeout_ms`.
 *
 * PYREX_INTERNAL if the two disagree, PYREX_DEADLINE_EXCEEDED if it took too long.
 */
pyrex_status_t pyrex_engine_probe(const pyrex_engine_t *engine,
                                  uint64_t timeout_ms);

/**
 * Takes no more requests, waits up to `timeout_ms` until those that are live have ended, and closes the engine. Those that are
 * cut off end with PYREX_CLOSED; how many they are goes to `*num_cut_off`, which may be NULL. Blocks.
 */
pyrex_status_t pyrex_engine_drain(const pyrex_engine_t *engine,
                                  uint64_t timeout_ms,
                                  uint64_t *num_cut_off);

/**
 * Frees an engine; NULL is fine. Does not wait for its requests: those that are live end with PYREX_CLOSED, and are still to be
 * freed, before or after. No other thread may be in a call on this engine. In a forked process it does nothing.
 */
void pyrex_engine_free(pyrex_engine_t *engine);

/**
 * Tells how an engine stands.
 */
pyrex_status_t pyrex_engine_stats(const pyrex_engine_t *engine, pyrex_stats_t *stats);

/**
 * Tells how an engine stands as a JSON object, whose keys are the fields of pyrex_stats_t. `*json` is to be freed with
 * pyrex_string_free().
 */
pyrex_status_t pyrex_engine_stats_json(const pyrex_engine_t *engine,
                                       char **json);

/**
 * An empty conversation. `*prompt` is to be freed with pyrex_prompt_free().
 */
pyrex_status_t pyrex_prompt_new(pyrex_prompt_t **prompt);

/**
 * Plain text to go on from, without a template; the beginning-of-sequence token is put in front once. `*prompt` is to be freed
 * with pyrex_prompt_free().
 */
pyrex_status_t pyrex_prompt_from_text(const char *text,
                                      size_t text_len,
                                      pyrex_prompt_t **prompt);

/**
 * Token ids, taken as they are. `*prompt` is to be freed with pyrex_prompt_free().
 */
pyrex_status_t pyrex_prompt_from_ids(const uint32_t *token_ids, size_t num_tokens, pyrex_prompt_t **prompt);

/**
 * The prompt of one JSON object in OpenAI's shape, as pyrex_engine_submit_json() reads it; what it says about the answer is
 * checked and left out. `*prompt` is to be freed with pyrex_prompt_free().
 */
pyrex_status_t pyrex_prompt_from_json(const char *json,
                                      size_t json_len,
                                      pyrex_prompt_t **prompt);

/**
 * Begins a turn of "system", "user", "assistant", "tool" or whatever else the model's template knows. What it says is added
 * behind it, text and images in their order.
 */
pyrex_status_t pyrex_prompt_add_turn(pyrex_prompt_t *prompt,
                                     const char *role);

/**
 * Adds text to the last turn.
 */
pyrex_status_t pyrex_prompt_add_text(pyrex_prompt_t *prompt, const char *text, size_t text_len);

/**
 * Adds an image to the last turn: the bytes of a PNG, JPEG, WebP, GIF or BMP file, which are copied. They are looked at when the
 * prompt is used.
 */
pyrex_status_t pyrex_prompt_add_image(pyrex_prompt_t *prompt,
                                      const uint8_t *bytes,
                                      size_t num_bytes);

/**
 * Adds an image to the last turn, from the file at `path` (UTF-8), which is read now.
 */
pyrex_status_t pyrex_prompt_add_image_file(pyrex_prompt_t *prompt, const char *path);

/**
 * Sets what else the template reads of the last turn, as JSON: "tool_calls", "tool_call_id", "name", "reasoning_content".
 */
pyrex_status_t pyrex_prompt_set_field(pyrex_prompt_t *prompt,
                                      const char *name,
                                      const char *json);

/**
 * Sets the tools that the model may call: a JSON list of declarations in the shape that its template expects.
 */
pyrex_status_t pyrex_prompt_set_tools(pyrex_prompt_t *prompt, const char *json);

/**
 * Sets a variable of the template, as JSON: "enable_thinking", "add_generation_prompt".
 */
pyrex_status_t pyrex_prompt_set_variable(pyrex_prompt_t *prompt, const char *name, const char *json);

/**
 * Frees a prompt; NULL is fine. Requests that were made of it go on.
 */
void pyrex_prompt_free(pyrex_prompt_t *prompt);

/**
 * Asks. Returns at once: the prompt is rendered and its images are decoded on another thread; only a grammar is compiled on
 * this one. `options` may be NULL. Prompt and options are copied. `*request` is to be freed with pyrex_request_free().
 *
 * PYREX_INVALID_REQUEST if a parameter or the grammar is wrong, PYREX_OVERLOADED if the queue is full, PYREX_CLOSED if the
 * engine has closed or drains. Whatever is wrong with the prompt comes as the request's PYREX_EVENT_FAILED.
 */
pyrex_status_t pyrex_engine_submit(const pyrex_engine_t *engine,
                                   const pyrex_prompt_t *prompt,
                                   const pyrex_request_options_t *options,
                                   pyrex_request_t **request);

/**
 * Asks with one JSON object, the body of OpenAI's `/v1/chat/completions` (it has `messages`) or `/v1/completions` (it has
 * `prompt`). Images are data URLs. Fields that are not supported are refused by name. What the body says nothing about is as
 * the checkpoint recommends. `model`, `user` and `stream` change nothing here: the events are the same.
 *
 * Otherwise as pyrex_engine_submit(); `user_data` is handed back in every event and to the notify function.
 */
pyrex_status_t pyrex_engine_submit_json(const pyrex_engine_t *engine,
                                        const char *json,
                                        size_t json_len,
                                        void *user_data,
                                        pyrex_request_t **request);

/**
 * Reads the next event, waiting for up to `timeout_ms`; PYREX_FOREVER waits as long as it takes. `*event` is lent until the
 * next event of this request is read or the request is freed; it is written only with PYREX_OK.
 *
 * PYREX_PENDING if no event came in time, PYREX_ENDED after the final one, PYREX_BUSY if another thread reads this request.
 * Events that nobody reads make the request pause, and it goes on when half of them are read.
 */
pyrex_status_t pyrex_request_next(pyrex_request_t *request,
                                  int64_t timeout_ms,
                                  const pyrex_event_t **event);

/**
 * As pyrex_request_next(), without waiting.
 */
pyrex_status_t pyrex_request_try_next(pyrex_request_t *request, const pyrex_event_t **event);

/**
 * Sets the function that is told when there may be an event to read; NULL tells nobody any more. It is called once before this
 * returns. Replacing it does not wait for a call of the one before; pyrex_request_free() does.
 */
pyrex_status_t pyrex_request_set_notify(pyrex_request_t *request,
                                        pyrex_notify_fn notify);

/**
 * A descriptor that poll() and epoll report as readable while an event can be read, and perhaps once more: read events with
 * pyrex_request_try_next() until it says PYREX_PENDING or PYREX_ENDED. Neither read nor close it: it belongs to the request.
 * PYREX_UNSUPPORTED anywhere but on Linux.
 */
pyrex_status_t pyrex_request_descriptor(pyrex_request_t *request,
                                        int32_t *descriptor);

/**
 * The pointer that was given when the request was submitted.
 */
pyrex_status_t pyrex_request_user_data(const pyrex_request_t *request, void **user_data);

/**
 * Asks the engine to end the request; events up to the final one, PYREX_EVENT_FAILED with PYREX_CANCELLED, still come. Does
 * nothing to a request that has ended or was cancelled before.
 */
pyrex_status_t pyrex_request_cancel(const pyrex_request_t *request);

/**
 * Frees a request, and cancels it if it has not ended; NULL is fine. Waits for a call of its notify function on another
 * thread, and for nothing else. No other thread may be in a call on this request. In a forked process it does nothing.
 */
void pyrex_request_free(pyrex_request_t *request);

/**
 * The token ids of a text, with nothing added before or after. As many as fit into `capacity` go to `token_ids`, which may be
 * NULL if that is 0; how many there are goes to `*num_tokens` in any case. Computes on the calling thread.
 */
pyrex_status_t pyrex_engine_tokenize(const pyrex_engine_t *engine,
                                     const char *text,
                                     size_t text_len,
                                     uint32_t *token_ids,
                                     size_t capacity,
                                     size_t *num_tokens);

/**
 * The text of token ids, special tokens left out; ids that the vocabulary does not have say nothing. `*text` is to be freed
 * with pyrex_string_free(); it is NUL-terminated, and has `*text_len` bytes before that, which may be NULs too. `text_len` may be
 * NULL. Computes on the calling thread.
 */
pyrex_status_t pyrex_engine_detokenize(const pyrex_engine_t *engine,
                                       const uint32_t *token_ids,
                                       size_t num_tokens,
                                       char **text,
                                       size_t *text_len);

/**
 * A prompt as the model reads it, image placeholders included; where the ids go is as in pyrex_engine_tokenize(). With `capacity` 0
 * this counts the tokens of a prompt with its images. How many of them are an image's goes to `*num_image_tokens`, which may
 * be NULL. Renders, and decodes images, on the calling thread.
 */
pyrex_status_t pyrex_engine_encode(const pyrex_engine_t *engine,
                                   const pyrex_prompt_t *prompt,
                                   uint32_t *token_ids,
                                   size_t capacity,
                                   size_t *num_tokens,
                                   size_t *num_image_tokens);

/**
 * A conversation as the model's template writes it, one placeholder for each image. `*text` and `text_len` are as in
 * pyrex_engine_detokenize(). Computes on the calling thread.
 */
pyrex_status_t pyrex_engine_apply_template(const pyrex_engine_t *engine,
                                           const pyrex_prompt_t *prompt,
                                           char **text,
                                           size_t *text_len);

/**
 * Frees a text that Pyrex gave. NULL is fine.
 */
void pyrex_string_free(char *text);

/**
 * Runs `prompt` through the model in the folder `model`, without an engine, and writes every named tensor of the pass to the file
 * `out_path`: raw f32 with a JSON index beside it if the name ends in ".bin", else safetensors. `options` may be NULL. How many tensors
 * were written goes to `*num_tensors`, which may be NULL. Blocks: it loads the model and computes on the calling thread.
 */
pyrex_status_t pyrex_dump(const char *model,
                          const pyrex_prompt_t *prompt,
                          const pyrex_dump_options_t *options,
                          const char *out_path,
                          uint64_t *num_tensors);

/**
 * Compares the dump `ours` with the dump `theirs`. Errors are judged as multiples of the distance between `noise`, a third dump,
 * and `theirs`; if that is NULL, of what `theirs` says about itself. `*comparison` is to be freed with
 * pyrex_comparison_free(). Blocks: it reads the files.
 */
pyrex_status_t pyrex_compare(const char *ours,
                             const char *theirs,
                             const char *noise,
                             pyrex_comparison_t **comparison);

/**
 * How many tensors were compared, and how many of them do not pass; either pointer may be NULL.
 */
pyrex_status_t pyrex_comparison_count(const pyrex_comparison_t *comparison,
                                      size_t *num_tensors,
                                      size_t *num_failures);

/**
 * Tells of the tensor at `tensor_idx`, in the order in which they were computed.
 */
pyrex_status_t pyrex_comparison_at(const pyrex_comparison_t *comparison,
                                   size_t tensor_idx,
                                   pyrex_compared_t *compared);

/**
 * Frees a comparison; NULL is fine.
 */
void pyrex_comparison_free(pyrex_comparison_t *comparison);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PYREX_H */
