// objects MODEL PICTURE: the classes of pyrex.hpp, with exceptions.

#include <pyrex.hpp>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <thread>
#include <type_traits>

#include "check.hpp"

using namespace std::chrono_literals;

pyrex::prompt made_elsewhere();

namespace {

const char *model;
const char *picture;

static_assert(!std::is_copy_constructible_v<pyrex::engine> && std::is_nothrow_move_constructible_v<pyrex::engine>);
static_assert(!std::is_copy_constructible_v<pyrex::prompt> && std::is_nothrow_move_constructible_v<pyrex::prompt>);
static_assert(!std::is_copy_constructible_v<pyrex::request> && std::is_nothrow_move_constructible_v<pyrex::request>);
static_assert(std::is_nothrow_move_assignable_v<pyrex::engine> && std::is_nothrow_move_assignable_v<pyrex::request>);
// A member of it points to itself when it is moved in C; here the function is kept apart.
static_assert(sizeof(pyrex::request) == sizeof(void *) && sizeof(pyrex::prompt) == sizeof(void *));

template <class Call>
pyrex::error caught(Call &&call) {
  try {
    call();
  } catch (const pyrex::error &error) {
    return error;
  }
  std::fputs("nothing was thrown\n", stderr);
  std::exit(1);
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

pyrex::prompt describe() {
  pyrex::prompt prompt;
  prompt.add_turn("user").add_image_file(picture).add_text("Describe this image.");
  return prompt;
}

/// Without a picture, which takes longest.
pyrex::prompt ask() {
  pyrex::prompt prompt;
  prompt.add_turn("user").add_text("What is a circle?");
  return prompt;
}

constexpr const char *CIRCLE = "A circle is a round shape with no corners.";

pyrex::request_options endless() {
  pyrex::request_options options;
  options.ignore_eos = 1;
  options.max_tokens = 4000;
  return options;
}

/// A request that has begun, and would go on for long.
pyrex::request begun(const pyrex::engine &engine) {
  auto request = engine.submit(ask(), endless());
  for (const auto &event : request) {
    if (event->kind == PYREX_EVENT_TOKEN) break;
  }
  return request;
}

void wait_until_idle(const pyrex::engine &engine) {
  for (auto stats = engine.stats(); stats.num_running + stats.num_waiting > 0; stats = engine.stats()) {
    std::this_thread::yield();
  }
}

void an_answer_is_read_as_a_range(const pyrex::engine &engine) {
  std::string text;
  int num_events = 0;
  std::int32_t last = 0;
  auto request = engine.submit(describe());
  for (const auto &event : request) {
    text += event.text();
    last = event->kind;
    CHECK(event.message().empty());
    num_events++;
  }
  CHECK(text == ANSWER);
  CHECK(last == PYREX_EVENT_FINISHED && num_events > 3);
  // Nothing comes after the end, however often it is asked for.
  for (const auto &event : request) CHECK(event->kind == 0);
  CHECK(request.text().empty());
  pyrex::event none;
  CHECK(request.try_next(none) == PYREX_ENDED && none.text().empty() && none.get() == nullptr);
}

void an_answer_is_read_at_once(const pyrex::engine &engine) {
  CHECK(engine.submit(ask()).text() == CIRCLE);
  std::ifstream file(picture, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  pyrex::prompt prompt;
  prompt.add_turn("user").add_image(bytes.data(), bytes.size()).add_text("Describe this image.");
  CHECK(engine.submit(prompt).text() == ANSWER);
  const auto json = R"({"messages": [{"role": "user", "content": "What is a circle?"}], "temperature": 0})";
  CHECK(engine.submit_json(json).text() == engine.submit(pyrex::prompt::from_json(json)).text());
}

void objects_move(const pyrex::engine &engine) {
  auto request = engine.submit(ask());
  auto moved = std::move(request);
  CHECK(request.get() == nullptr && moved.get() != nullptr);
  request = std::move(moved);
  CHECK(request.text() == CIRCLE);
  auto other = engine.submit(ask(), endless());
  // What was there is cancelled and freed.
  other = std::move(request);
  wait_until_idle(engine);

  auto prompt = ask();
  auto taken = std::move(prompt);
  CHECK(prompt.get() == nullptr && engine.submit(taken).text() == CIRCLE);

  auto first = pyrex::engine::open(model);
  auto second = std::move(first);
  CHECK(first.get() == nullptr && second.submit(taken).text() == CIRCLE);
  second = pyrex::engine::open(model);
  CHECK(second.submit(taken).text() == CIRCLE);
}

void what_was_moved_from_says_so() {
  pyrex::engine engine;
  pyrex::request request;
  pyrex::prompt prompt, taken = std::move(prompt);
  pyrex::event event;
  const auto is_null = [](pyrex_status_t status) { return status == PYREX_NULL_ARGUMENT; };
  CHECK(is_null(prompt.try_add_turn("user")) && is_null(prompt.try_set_variable("a", "1")));
  CHECK(is_null(request.try_next(event)) && is_null(request.try_text().status()));
  CHECK(is_null(request.try_cancel()) && is_null(request.try_set_notify([] {})));
  CHECK(is_null(request.try_descriptor().status()));
  CHECK(is_null(engine.try_submit(taken).status()) && is_null(engine.try_info().status()));
  CHECK(is_null(engine.try_tokenize("a").status()) && is_null(engine.try_stats_json().status()));
  CHECK(is_null(caught([&] { for (const auto &next : request) CHECK(next->kind == 0); }).status()));
  CHECK(is_null(caught([&] { engine.drain(1s); }).status()));
}

void failures_are_exceptions(const pyrex::engine &engine) {
  const auto no_model = caught([] { pyrex::engine::open("no such folder"); });
  CHECK(no_model.status() == PYREX_INVALID_MODEL && contains(no_model.what(), "no such folder"));

  pyrex::request_options hot;
  hot.temperature = -1;
  const auto refused = caught([&] { engine.submit(ask(), hot); });
  CHECK(refused.status() == PYREX_INVALID_REQUEST && contains(refused.what(), "temperature"));
  const auto same = engine.try_submit(ask(), hot);
  CHECK(!same && same.status() == refused.status() && same.message() == refused.what());

  // A wrong prompt is told by the request, not by who submits.
  pyrex::prompt wrong;
  wrong.add_turn("user").add_image("no picture", 10);
  auto request = engine.submit(wrong);
  const auto failed = caught([&] { for (const auto &event : request) CHECK(event->kind != PYREX_EVENT_FAILED); });
  CHECK(failed.status() == PYREX_INVALID_REQUEST && contains(failed.what(), "image"));
  CHECK(caught([&] { engine.submit(wrong).text(); }).status() == PYREX_INVALID_REQUEST);

  // As an event, for who wants that.
  pyrex::event event;
  auto again = engine.submit(wrong);
  while (again.try_next(event) == PYREX_OK && event->kind != PYREX_EVENT_FAILED) continue;
  CHECK(event.text().empty() && event.message() == failed.what());
}

void leaving_early_cancels(const pyrex::engine &engine) {
  begun(engine);
  wait_until_idle(engine);
  auto request = begun(engine);
  request.cancel();
  CHECK(caught([&] { request.text(); }).status() == PYREX_CANCELLED);
}

void timeouts_are_durations(const pyrex::engine &engine) {
  pyrex::request_options options = endless();
  auto request = engine.submit(ask(), options);
  pyrex::event event;
  CHECK(request.try_next(event, 10s) == PYREX_OK && event->kind == PYREX_EVENT_STARTED);
  // Less than nothing is nothing.
  while (request.try_next(event, -5ms) == PYREX_OK) continue;
  CHECK(request.try_next(event, 0ms) != PYREX_ENDED);
  options.timeout_ms = 1;
  CHECK(caught([&] { engine.submit(ask(), options).text(); }).status() == PYREX_DEADLINE_EXCEEDED);
  engine.probe(30s);
}

void notify_is_told_and_kept_as_long_as_needed(const pyrex::engine &engine) {
  std::mutex mutex;
  std::condition_variable told;
  bool may_read = false;
  auto capture = std::make_shared<int>(0);
  const std::weak_ptr<int> kept = capture;
  auto request = engine.submit(ask());
  request.set_notify([&, capture = std::move(capture)] {
    const std::lock_guard<std::mutex> lock(mutex);
    may_read = true;
    told.notify_one();
  });
  // It goes with the request.
  auto moved = std::move(request);
  std::string text;
  pyrex::event event;
  pyrex_status_t status = PYREX_PENDING;
  while (status != PYREX_ENDED) {
    std::unique_lock<std::mutex> lock(mutex);
    told.wait(lock, [&] { return may_read; });
    may_read = false;
    lock.unlock();
    while ((status = moved.try_next(event, 0ms)) == PYREX_OK) text += event.text();
  }
  CHECK(text == CIRCLE && !kept.expired());
  moved = pyrex::request();
  CHECK(kept.expired());
}

void notify_may_be_replaced_throw_and_end_its_request(const pyrex::engine &engine) {
  auto request = engine.submit(ask());
  for (int i = 0; i < 100; i++) {
    request.set_notify([] { throw 1; });
    request.set_notify(nullptr);
  }
  request.set_notify([] { throw std::runtime_error("dropped"); });
  CHECK(request.text() == CIRCLE);

  std::mutex mutex;
  std::condition_variable told;
  std::optional<pyrex::request> doomed = engine.submit(ask(), endless());
  std::atomic<bool> may_end{false};
  doomed->set_notify([&] {
    if (!may_end.exchange(false)) return;
    const std::lock_guard<std::mutex> lock(mutex);
    doomed.reset();
    told.notify_one();
  });
  may_end = true;
  std::unique_lock<std::mutex> lock(mutex);
  told.wait(lock, [&] { return !doomed; });
  lock.unlock();
  wait_until_idle(engine);
}

void opening_tells_its_progress_and_its_log() {
  std::uint64_t done = 0, total = 0;
  std::atomic<int> num_lines{0};
  pyrex::engine_options options;
  options.num_threads = 1;
  options.log_level = PYREX_LOG_DEBUG;
  options.on_progress = [&](std::uint64_t now, std::uint64_t of) {
    done = now, total = of;
    return true;
  };
  options.on_log = [&](std::int32_t level, std::string_view target, std::string_view message) {
    CHECK(level >= PYREX_LOG_ERROR && level <= PYREX_LOG_DEBUG && !target.empty() && !message.empty());
    num_lines++;
    throw 1;
  };
  auto engine = pyrex::engine::open(model, options);
  CHECK(done == total && total > 0);
  // The engine has a function of its own, which is moved with it.
  options.on_log = nullptr;
  auto moved = std::move(engine);
  CHECK(moved.submit(ask()).text() == CIRCLE && num_lines > 0);

  options.on_progress = [](std::uint64_t, std::uint64_t) { return false; };
  CHECK(pyrex::engine::try_open(model, options).status() == PYREX_CANCELLED);
  options.on_progress = [](std::uint64_t, std::uint64_t) -> bool { throw 1; };
  CHECK(caught([&] { pyrex::engine::open(model, options); }).status() == PYREX_CANCELLED);
}

void texts_become_ids_and_return(const pyrex::engine &engine) {
  const std::string_view text = "a red circle, and more";
  CHECK(engine.detokenize(engine.tokenize(text.substr(0, 12))) == "a red circle");
  CHECK(engine.tokenize("").empty() && engine.detokenize({}).empty());
  CHECK(engine.encode(describe()).size() > engine.encode(ask()).size());
  CHECK(engine.submit(pyrex::prompt::from_text("A circle is")).text() ==
        engine.submit(pyrex::prompt::from_ids(engine.encode(pyrex::prompt::from_text("A circle is")))).text());
  CHECK(contains(engine.apply_template(ask()), "What is a circle?"));
  CHECK(contains(engine.stats_json(), "num_running") && engine.info().reads_images == 1);
  CHECK(made_elsewhere().try_add_turn("user") == PYREX_OK);
}

void two_engines_answer_at_once_from_many_threads(const pyrex::engine &engine) {
  const auto other = pyrex::engine::open(model);
  const auto prompt = ask();
  std::atomic<int> num_right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) {
    threads.emplace_back([&, i] { num_right += (i % 2 ? engine : other).submit(prompt).text() == CIRCLE; });
  }
  for (auto &thread : threads) thread.join();
  CHECK(num_right == 8);
  auto cut_off = other.submit(prompt, endless());
  CHECK(other.drain(0ms) == 1);
  CHECK(caught([&] { cut_off.text(); }).status() == PYREX_CLOSED);
  CHECK(other.try_submit(prompt).status() == PYREX_CLOSED);
}

void a_request_may_outlive_its_engine() {
  auto engine = pyrex::engine::open(model);
  auto request = begun(engine);
  engine = pyrex::engine();
  CHECK(caught([&] { request.text(); }).status() == PYREX_CLOSED);
}

}  // namespace

int main(int argc, char **argv) {
  CHECK(argc == 3);
  model = argv[1];
  picture = argv[2];
  const auto engine = pyrex::engine::open(model);
  an_answer_is_read_as_a_range(engine);
  an_answer_is_read_at_once(engine);
  objects_move(engine);
  what_was_moved_from_says_so();
  failures_are_exceptions(engine);
  leaving_early_cancels(engine);
  timeouts_are_durations(engine);
  notify_is_told_and_kept_as_long_as_needed(engine);
  notify_may_be_replaced_throw_and_end_its_request(engine);
  opening_tells_its_progress_and_its_log();
  texts_become_ids_and_return(engine);
  two_engines_answer_at_once_from_many_threads(engine);
  a_request_may_outlive_its_engine();
}
