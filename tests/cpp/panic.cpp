// panic MODEL: a panic in the installed library unwinds, is caught, and is a status. What makes it panic is a clock that fails:
// this program has its own, which the library finds in place of the C library's.

#include <pyrex.hpp>

#include <cerrno>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.hpp"

namespace {
thread_local bool clock_fails = false;
}

extern "C" int clock_gettime(clockid_t clock, timespec *time) noexcept {
  if (!clock_fails) return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  errno = EINVAL;
  return -1;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  const auto prompt = pyrex::prompt::from_text("A circle is");
  auto engine = pyrex::engine::open(argv[1]);
  auto request = engine.submit(prompt);
  pyrex::event event;

  clock_fails = true;
  pyrex_status_t status = request.try_next(event, std::chrono::seconds(10));
  clock_fails = false;
  CHECK(status == PYREX_PANIC);
  CHECK(std::string_view(pyrex_last_error_message()).find("panic") != std::string_view::npos);
  // Reading goes on: a request is changed in one step.
  CHECK(request.try_next(event) == PYREX_OK && event->kind == PYREX_EVENT_STARTED);

  // Deeper inside, where there is more to unwind. The engine that panicked is closed, others are not touched.
  const auto other = pyrex::engine::open(argv[1]);
  clock_fails = true;
  status = engine.try_submit(prompt).status();
  clock_fails = false;
  CHECK(status == PYREX_PANIC && engine.try_submit(prompt).status() == PYREX_CLOSED);
  CHECK(!other.submit(prompt).text().empty());
}
