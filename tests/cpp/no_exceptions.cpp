// no_exceptions MODEL PICTURE: the same classes where nothing can be thrown.

#include <pyrex.hpp>

#include "check.hpp"

#ifdef __cpp_exceptions
#error "to be built with -fno-exceptions"
#endif

using namespace std::chrono_literals;

int main(int argc, char **argv) {
  CHECK(argc == 3);
  auto opened = pyrex::engine::try_open(argv[1]);
  CHECK(opened && opened.status() == PYREX_OK && opened.message().empty());
  pyrex::engine engine = std::move(*opened);

  pyrex::prompt prompt;
  CHECK(prompt.try_add_turn("user") == PYREX_OK);
  CHECK(prompt.try_add_image_file(argv[2]) == PYREX_OK);
  CHECK(prompt.try_add_text("Describe this image.") == PYREX_OK);
  CHECK(prompt.try_add_image_file("no such file") == PYREX_IO);

  auto request = engine.try_submit(prompt);
  CHECK(request);
  int num_told = 0;
  CHECK(request->try_set_notify([&] { num_told++; }) == PYREX_OK);
  CHECK(num_told > 0);
  CHECK(request->try_set_notify(nullptr) == PYREX_OK);
  std::string text;
  pyrex::event event;
  pyrex_status_t status;
  while ((status = request->try_next(event, 60s)) == PYREX_OK) text += event.text();
  CHECK(status == PYREX_ENDED && text == ANSWER);

  const auto refused = pyrex::engine::try_open("no such folder");
  CHECK(!refused && refused.status() == PYREX_INVALID_MODEL && !refused.message().empty());
  const auto ids = engine.try_tokenize("a red circle");
  CHECK(ids && !ids->empty() && *engine.try_detokenize(*ids) == "a red circle");
  auto cancelled = engine.try_submit(prompt);
  CHECK(cancelled && cancelled->try_cancel() == PYREX_OK);
  const auto none = cancelled->try_text();
  CHECK(!none && none.status() == PYREX_CANCELLED);
  const auto num_cut_off = engine.try_drain(10s);
  CHECK(num_cut_off && *num_cut_off == 0);
}
