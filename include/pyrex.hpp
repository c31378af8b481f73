/*
 * libpyrex for C++17: the objects of pyrex.h as classes that free them.
 *
 *     auto engine = pyrex::engine::open("models/shapes");
 *     pyrex::prompt prompt;
 *     prompt.add_turn("user").add_image_file("red_circle.png").add_text("Describe this image.");
 *     auto request = engine.submit(prompt);
 *     for (const auto &event : request) std::cout << event.text();
 *
 * What a function does, and from which threads, stands in pyrex.h at the C function of its name. What is different here:
 *
 * Errors.     Everything that can fail has a form named `try_` that returns a pyrex_status_t or a pyrex::result, and one without
 *             that throws pyrex::error. With -fno-exceptions or PYREX_NO_EXCEPTIONS only the first is there, and no more is needed.
 * Ownership.  Objects are moved, never copied. One that was moved from is empty, as is a default-constructed engine or request:
 *             all its functions fail with PYREX_NULL_ARGUMENT. `get()` is the C object, for functions that have no form here.
 * Functions.  Yours are kept until the object that calls them is destroyed. They should not throw: what leaves them is dropped.
 * Text.       NUL-terminated where C asks for that; a NUL inside of such text ends it.
 */

#ifndef PYREX_HPP
#define PYREX_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pyrex.h"

#if !defined(PYREX_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define PYREX_NO_EXCEPTIONS
#endif

#ifndef PYREX_NO_EXCEPTIONS
#include <stdexcept>
#endif

namespace pyrex {

#ifndef PYREX_NO_EXCEPTIONS
/// What failed, in one line, and its status.
class error : public std::runtime_error {
 public:
  error(pyrex_status_t status, const std::string &message) : std::runtime_error(message), status_(status) {}

  pyrex_status_t status() const noexcept { return status_; }

 private:
  pyrex_status_t status_;
};
#endif

/// A value, or why there is none.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : value_(std::move(value)) {}
  result(pyrex_status_t status, std::string message) : status_(status), message_(std::move(message)) {}

  explicit operator bool() const noexcept { return value_.has_value(); }
  T &operator*() noexcept { return *value_; }
  const T &operator*() const noexcept { return *value_; }
  T *operator->() noexcept { return &*value_; }
  const T *operator->() const noexcept { return &*value_; }

  /// PYREX_OK if there is a value.
  pyrex_status_t status() const noexcept { return status_; }
  const std::string &message() const noexcept { return message_; }

#ifndef PYREX_NO_EXCEPTIONS
  T value() && {
    if (!value_) throw error(status_, message_);
    return std::move(*value_);
  }
#endif

 private:
  pyrex_status_t status_ = PYREX_OK;
  std::string message_;
  std::optional<T> value_;
};

namespace detail {

/// Frees an object of C.
template <auto Free>
struct freed_by {
  template <class T>
  void operator()(T *object) const noexcept {
    Free(object);
  }
};

/// `value`, if the call that was to make it worked.
template <class T>
result<T> made(pyrex_status_t status, T value) {
  if (status == PYREX_OK) return value;
  return {status, pyrex_last_error_message()};
}

/// What `call` writes through the pointer it is given.
template <class T, class Call>
result<T> written(Call &&call) {
  T value{};
  const pyrex_status_t status = call(&value);
  return made(status, std::move(value));
}

#ifndef PYREX_NO_EXCEPTIONS
inline void check(pyrex_status_t status) {
  if (status != PYREX_OK) throw error(status, pyrex_last_error_message());
}
#endif

/// Calls a function of the host from C; false if something left it.
template <class Call>
bool contained(Call &&call) noexcept {
#ifdef PYREX_NO_EXCEPTIONS
  call();
  return true;
#else
  try {
    call();
    return true;
  } catch (...) {
    return false;
  }
#endif
}

/// As many ids as there are: `write(ids, capacity, num_tokens)` writes as many as fit.
template <class Write>
result<std::vector<std::uint32_t>> all_ids(Write &&write) {
  std::vector<std::uint32_t> ids;
  std::size_t num_tokens = 0;
  pyrex_status_t status = write(nullptr, 0, &num_tokens);
  if (status == PYREX_OK) {
    ids.resize(num_tokens);
    status = write(ids.data(), ids.size(), &num_tokens);
  }
  return made(status, std::move(ids));
}

/// The text that `give(text, len)` gives, which C frees.
template <class Give>
result<std::string> text(Give &&give) {
  char *given = nullptr;
  std::size_t len = 0;
  const pyrex_status_t status = give(&given, &len);
  const std::unique_ptr<char, freed_by<pyrex_string_free>> text(given);
  return made(status, status == PYREX_OK ? std::string(given, len) : std::string());
}

inline std::uint64_t millis(std::chrono::milliseconds timeout) noexcept {
  return timeout.count() > 0 ? static_cast<std::uint64_t>(timeout.count()) : 0;
}

}  // namespace detail

/// The options of C with their size set. Functions are set here, by the members that C has no place for.
struct engine_options : pyrex_engine_options_t {
  engine_options() noexcept : pyrex_engine_options_t{} { struct_size = sizeof(pyrex_engine_options_t); }

  /// Told how many bytes of the weights were taken, and how many there are. False ends the opening with PYREX_CANCELLED, and
  /// so does an exception.
  std::function<bool(std::uint64_t done, std::uint64_t total)> on_progress;

  /// Told the log, up to `log_level`. Must not destroy the engine.
  std::function<void(std::int32_t level, std::string_view target, std::string_view message)> on_log;

 private:
  using pyrex_engine_options_t::log;
  using pyrex_engine_options_t::log_data;
  using pyrex_engine_options_t::progress;
  using pyrex_engine_options_t::progress_data;
};

/// The options of C with their size set. There is no `user_data`: a function can have what it needs in its capture.
struct request_options : pyrex_request_options_t {
  request_options() noexcept : pyrex_request_options_t{} { struct_size = sizeof(pyrex_request_options_t); }

 private:
  using pyrex_request_options_t::user_data;
};

/// What happens to a request. It is lent as in C: valid until the next event is read or the request is destroyed.
class event {
 public:
  event() noexcept = default;
  explicit event(const pyrex_event_t *lent) noexcept : event_(lent) {}

  /// TOKEN: the text that is now certain. Empty with every other kind.
  std::string_view text() const noexcept { return of(PYREX_EVENT_TOKEN); }
  /// FAILED: what went wrong. Empty with every other kind.
  std::string_view message() const noexcept { return of(PYREX_EVENT_FAILED); }

  /// The event of C, with all the rest: `event->kind`, `event->token_id`. An event that was never read has none.
  const pyrex_event_t *operator->() const noexcept { return event_; }
  const pyrex_event_t *get() const noexcept { return event_; }

 private:
  std::string_view of(std::int32_t kind) const noexcept {
    if (!event_ || event_->kind != kind) return {};
    return {event_->text, event_->text_len};
  }

  const pyrex_event_t *event_ = nullptr;
};

/// What is asked.
class prompt {
 public:
  /// An empty conversation.
  prompt() noexcept {
    pyrex_prompt_t *made = nullptr;
    if (pyrex_prompt_new(&made) == PYREX_OK) prompt_.reset(made);
  }

  static result<prompt> try_from_text(std::string_view text) {
    return made([&](pyrex_prompt_t **made) { return pyrex_prompt_from_text(text.data(), text.size(), made); });
  }
  static result<prompt> try_from_ids(const std::vector<std::uint32_t> &token_ids) {
    return made([&](pyrex_prompt_t **made) { return pyrex_prompt_from_ids(token_ids.data(), token_ids.size(), made); });
  }
  static result<prompt> try_from_json(std::string_view json) {
    return made([&](pyrex_prompt_t **made) { return pyrex_prompt_from_json(json.data(), json.size(), made); });
  }

  [[nodiscard]] pyrex_status_t try_add_turn(const std::string &role) {
    return pyrex_prompt_add_turn(get(), role.c_str());
  }
  [[nodiscard]] pyrex_status_t try_add_text(std::string_view text) {
    return pyrex_prompt_add_text(get(), text.data(), text.size());
  }
  [[nodiscard]] pyrex_status_t try_add_image(const void *bytes, std::size_t num_bytes) {
    return pyrex_prompt_add_image(get(), static_cast<const std::uint8_t *>(bytes), num_bytes);
  }
  [[nodiscard]] pyrex_status_t try_add_image_file(const std::string &path) {
    return pyrex_prompt_add_image_file(get(), path.c_str());
  }
  [[nodiscard]] pyrex_status_t try_set_field(const std::string &name, const std::string &json) {
    return pyrex_prompt_set_field(get(), name.c_str(), json.c_str());
  }
  [[nodiscard]] pyrex_status_t try_set_tools(const std::string &json) {
    return pyrex_prompt_set_tools(get(), json.c_str());
  }
  [[nodiscard]] pyrex_status_t try_set_variable(const std::string &name, const std::string &json) {
    return pyrex_prompt_set_variable(get(), name.c_str(), json.c_str());
  }

#ifndef PYREX_NO_EXCEPTIONS
  static prompt from_text(std::string_view text) { return try_from_text(text).value(); }
  static prompt from_ids(const std::vector<std::uint32_t> &token_ids) { return try_from_ids(token_ids).value(); }
  static prompt from_json(std::string_view json) { return try_from_json(json).value(); }

  prompt &add_turn(const std::string &role) { return after(try_add_turn(role)); }
  prompt &add_text(std::string_view text) { return after(try_add_text(text)); }
  prompt &add_image(const void *bytes, std::size_t num_bytes) { return after(try_add_image(bytes, num_bytes)); }
  prompt &add_image_file(const std::string &path) { return after(try_add_image_file(path)); }
  prompt &set_field(const std::string &name, const std::string &json) { return after(try_set_field(name, json)); }
  prompt &set_tools(const std::string &json) { return after(try_set_tools(json)); }
  prompt &set_variable(const std::string &name, const std::string &json) {
    return after(try_set_variable(name, json));
  }
#endif

  pyrex_prompt_t *get() const noexcept { return prompt_.get(); }

 private:
  explicit prompt(pyrex_prompt_t *made) noexcept : prompt_(made) {}

  template <class Make>
  static result<prompt> made(Make &&make) {
    pyrex_prompt_t *made = nullptr;
    const pyrex_status_t status = make(&made);
    return detail::made(status, prompt(made));
  }

#ifndef PYREX_NO_EXCEPTIONS
  prompt &after(pyrex_status_t status) {
    detail::check(status);
    return *this;
  }
#endif

  std::unique_ptr<pyrex_prompt_t, detail::freed_by<pyrex_prompt_free>> prompt_;
};

/// A request that was submitted. Destroying it cancels it, if it has not ended.
class request {
 public:
  request() noexcept = default;

  /// Reads the next event, waiting for up to `timeout`, or as long as it takes. PYREX_PENDING if none came, PYREX_ENDED after the
  /// final one. A request that fails is read well, and its last event is PYREX_EVENT_FAILED.
  [[nodiscard]] pyrex_status_t try_next(event &next,
                                        std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
    const pyrex_event_t *read = nullptr;
    const std::int64_t timeout_ms = timeout ? std::max<std::int64_t>(timeout->count(), 0) : PYREX_FOREVER;
    const pyrex_status_t status = pyrex_request_next(get(), timeout_ms, &read);
    if (status == PYREX_OK) next = event(read);
    return status;
  }

  /// Waits for all that is still to be read of the first completion, and gives its text.
  result<std::string> try_text() {
    std::string text;
    for (event next;;) {
      const pyrex_status_t status = try_next(next);
      if (status == PYREX_ENDED) return text;
      if (status != PYREX_OK) return {status, pyrex_last_error_message()};
      if (next->kind == PYREX_EVENT_FAILED) return {failure(next), std::string(next.message())};
      if (next->completion_idx == 0) text += next.text();
    }
  }

  /// Sets the function that is told when there may be an event to read; an empty one tells nobody any more. It may destroy the
  /// request. The one before is destroyed when its last call has returned.
  [[nodiscard]] pyrex_status_t try_set_notify(std::function<void()> notify) {
    void *data = nullptr;
    pyrex_status_t status = pyrex_request_user_data(get(), &data);
    if (status != PYREX_OK) return status;
    const bool is_set = static_cast<bool>(notify);
    static_cast<notifier *>(data)->set(std::move(notify));
    return pyrex_request_set_notify(get(), is_set ? notifier::call : nullptr);
  }

  [[nodiscard]] pyrex_status_t try_cancel() const { return pyrex_request_cancel(get()); }

  result<std::int32_t> try_descriptor() {
    return detail::written<std::int32_t>([&](auto *written) { return pyrex_request_descriptor(get(), written); });
  }

#ifndef PYREX_NO_EXCEPTIONS
  std::string text() { return try_text().value(); }
  void set_notify(std::function<void()> notify) { detail::check(try_set_notify(std::move(notify))); }
  void cancel() const { detail::check(try_cancel()); }
  std::int32_t descriptor() { return try_descriptor().value(); }

  struct sentinel {};

  /// Waits for each event. Throws if the request fails, in place of its last event.
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = event;
    using difference_type = std::ptrdiff_t;
    using pointer = const event *;
    using reference = const event &;

    explicit iterator(request &from) : request_(&from) { ++*this; }

    reference operator*() const noexcept { return event_; }
    pointer operator->() const noexcept { return &event_; }
    iterator &operator++() {
      const pyrex_status_t status = request_->try_next(event_);
      has_ended_ = status == PYREX_ENDED;
      if (!has_ended_) detail::check(status);
      if (!has_ended_ && event_->kind == PYREX_EVENT_FAILED) {
        throw error(failure(event_), std::string(event_.message()));
      }
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator &at, sentinel) noexcept { return at.has_ended_; }
    friend bool operator!=(const iterator &at, sentinel) noexcept { return !at.has_ended_; }

   private:
    request *request_;
    event event_;
    bool has_ended_ = false;
  };

  /// Goes on with the first event that was not read yet.
  iterator begin() { return iterator(*this); }
  sentinel end() const noexcept { return {}; }
#endif

  pyrex_request_t *get() const noexcept { return request_.get(); }

 private:
  friend class engine;

  /// The function of a request, which is its `user_data` in C. It is kept apart from the request so that that can be moved, and
  /// by each call, so that a call may replace it or destroy the request.
  class notifier {
   public:
    static void call(void *data) noexcept { static_cast<notifier *>(data)->notify(); }

    void set(std::function<void()> notify) {
      auto shared = std::make_shared<std::function<void()>>(std::move(notify));
      const std::lock_guard<std::mutex> lock(mutex_);
      notify_.swap(shared);
    }

   private:
    void notify() noexcept {
      std::shared_ptr<std::function<void()>> notify;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        notify = notify_;
      }
      if (notify && *notify) detail::contained(*notify);
    }

    std::mutex mutex_;
    std::shared_ptr<std::function<void()>> notify_;
  };

  /// C waits for calls of the function before it frees the request; then nobody needs it.
  struct freed {
    void operator()(pyrex_request_t *request) const noexcept {
      void *data = nullptr;
      const bool is_here = pyrex_request_user_data(request, &data) == PYREX_OK;
      pyrex_request_free(request);
      if (is_here) delete static_cast<notifier *>(data);
    }
  };

  static pyrex_status_t failure(const event &event) noexcept { return static_cast<pyrex_status_t>(event->status); }

  std::unique_ptr<pyrex_request_t, freed> request_;
};

/// A model that answers requests. May be used from any number of threads at once.
class engine {
 public:
  engine() noexcept = default;

  static result<engine> try_open(const std::string &model, const engine_options &options = {}) {
    return opened(options, [&](const pyrex_engine_options_t *given, pyrex_engine_t **made) {
      return pyrex_engine_open(model.c_str(), given, made);
    });
  }
  static result<engine> try_open_files(const std::vector<pyrex_file_t> &files, const engine_options &options = {}) {
    return opened(options, [&](const pyrex_engine_options_t *given, pyrex_engine_t **made) {
      return pyrex_engine_open_files(files.data(), files.size(), given, made);
    });
  }

  result<request> try_submit(const prompt &prompt, const request_options &options = {}) const {
    return submitted([&](void *data, pyrex_request_t **made) {
      pyrex_request_options_t given = options;
      given.user_data = data;
      return pyrex_engine_submit(get(), prompt.get(), &given, made);
    });
  }
  result<request> try_submit_json(std::string_view json) const {
    return submitted([&](void *data, pyrex_request_t **made) {
      return pyrex_engine_submit_json(get(), json.data(), json.size(), data, made);
    });
  }

  result<pyrex_engine_info_t> try_info() const {
    return detail::written<pyrex_engine_info_t>([&](auto *info) {
      info->struct_size = sizeof *info;
      return pyrex_engine_info(get(), info);
    });
  }
  result<pyrex_stats_t> try_stats() const {
    return detail::written<pyrex_stats_t>([&](auto *stats) {
      stats->struct_size = sizeof *stats;
      return pyrex_engine_stats(get(), stats);
    });
  }
  result<std::string> try_stats_json() const {
    return detail::text([&](char **json, std::size_t *len) {
      const pyrex_status_t status = pyrex_engine_stats_json(get(), json);
      if (status == PYREX_OK) *len = std::string_view(*json).size();
      return status;
    });
  }
  [[nodiscard]] pyrex_status_t try_probe(std::chrono::milliseconds timeout) const {
    return pyrex_engine_probe(get(), detail::millis(timeout));
  }
  /// Gives how many requests were cut off.
  result<std::uint64_t> try_drain(std::chrono::milliseconds timeout) const {
    return detail::written<std::uint64_t>(
        [&](auto *num_cut_off) { return pyrex_engine_drain(get(), detail::millis(timeout), num_cut_off); });
  }

  result<std::vector<std::uint32_t>> try_tokenize(std::string_view text) const {
    return detail::all_ids([&](std::uint32_t *ids, std::size_t capacity, std::size_t *num_tokens) {
      return pyrex_engine_tokenize(get(), text.data(), text.size(), ids, capacity, num_tokens);
    });
  }
  result<std::string> try_detokenize(const std::vector<std::uint32_t> &token_ids) const {
    return detail::text([&](char **text, std::size_t *len) {
      return pyrex_engine_detokenize(get(), token_ids.data(), token_ids.size(), text, len);
    });
  }
  result<std::vector<std::uint32_t>> try_encode(const prompt &prompt) const {
    return detail::all_ids([&](std::uint32_t *ids, std::size_t capacity, std::size_t *num_tokens) {
      return pyrex_engine_encode(get(), prompt.get(), ids, capacity, num_tokens, nullptr);
    });
  }
  result<std::string> try_apply_template(const prompt &prompt) const {
    return detail::text([&](char **text, std::size_t *len) {
      return pyrex_engine_apply_template(get(), prompt.get(), text, len);
    });
  }

#ifndef PYREX_NO_EXCEPTIONS
  static engine open(const std::string &model, const engine_options &options = {}) {
    return try_open(model, options).value();
  }
  static engine open_files(const std::vector<pyrex_file_t> &files, const engine_options &options = {}) {
    return try_open_files(files, options).value();
  }
  request submit(const prompt &prompt, const request_options &options = {}) const {
    return try_submit(prompt, options).value();
  }
  request submit_json(std::string_view json) const { return try_submit_json(json).value(); }
  pyrex_engine_info_t info() const { return try_info().value(); }
  pyrex_stats_t stats() const { return try_stats().value(); }
  std::string stats_json() const { return try_stats_json().value(); }
  void probe(std::chrono::milliseconds timeout) const { detail::check(try_probe(timeout)); }
  std::uint64_t drain(std::chrono::milliseconds timeout) const { return try_drain(timeout).value(); }
  std::vector<std::uint32_t> tokenize(std::string_view text) const { return try_tokenize(text).value(); }
  std::string detokenize(const std::vector<std::uint32_t> &ids) const { return try_detokenize(ids).value(); }
  std::vector<std::uint32_t> encode(const prompt &prompt) const { return try_encode(prompt).value(); }
  std::string apply_template(const prompt &prompt) const { return try_apply_template(prompt).value(); }
#endif

  pyrex_engine_t *get() const noexcept { return engine_.get(); }

 private:
  using log_function = std::function<void(std::int32_t, std::string_view, std::string_view)>;
  using progress_function = std::function<bool(std::uint64_t, std::uint64_t)>;

  /// The log is told until the engine is freed.
  struct freed {
    std::unique_ptr<log_function> log;

    void operator()(pyrex_engine_t *engine) noexcept {
      pyrex_engine_free(engine);
      log.reset();
    }
  };

  engine(pyrex_engine_t *made, freed by) noexcept : engine_(made, std::move(by)) {}

  template <class Open>
  static result<engine> opened(const engine_options &options, Open &&open) {
    pyrex_engine_options_t given = options;
    auto log = options.on_log ? std::make_unique<log_function>(options.on_log) : nullptr;
    if (log) {
      given.log = tell_log;
      given.log_data = log.get();
    }
    auto progress = options.on_progress;
    if (progress) {
      given.progress = tell_progress;
      given.progress_data = &progress;
    }
    pyrex_engine_t *made = nullptr;
    const pyrex_status_t status = open(&given, &made);
    return detail::made(status, engine(made, freed{std::move(log)}));
  }

  template <class Submit>
  static result<request> submitted(Submit &&submit) {
    auto notifier = std::make_unique<request::notifier>();
    request given;
    pyrex_request_t *made = nullptr;
    const pyrex_status_t status = submit(notifier.get(), &made);
    if (status == PYREX_OK) {
      given.request_.reset(made);
      // From now on it belongs to the request.
      static_cast<void>(notifier.release());
    }
    return detail::made(status, std::move(given));
  }

  static void tell_log(void *data, std::int32_t level, const char *target, const char *message) noexcept {
    detail::contained([&] { (*static_cast<log_function *>(data))(level, target, message); });
  }

  static std::int32_t tell_progress(void *data, std::uint64_t done, std::uint64_t total) noexcept {
    bool goes_on = false;
    detail::contained([&] { goes_on = (*static_cast<progress_function *>(data))(done, total); });
    return goes_on ? 0 : 1;
  }

  std::unique_ptr<pyrex_engine_t, freed> engine_;
};

}  // namespace pyrex

#endif  // PYREX_HPP
