// neighbour MODEL PICTURE: libpyrex.a and another Rust library in one program.

#include <pyrex.hpp>

#include "check.hpp"

extern "C" int neighbour_panics();

int main(int argc, char **argv) {
  CHECK(argc == 3);
  CHECK(neighbour_panics() == 1);
  const auto engine = pyrex::engine::open(argv[1]);
  pyrex::prompt prompt;
  prompt.add_turn("user").add_image_file(argv[2]).add_text("Describe this image.");
  CHECK(engine.submit(prompt).text() == ANSWER);
  CHECK(neighbour_panics() == 1);
}
