// A picture in, its description out: describe [MODEL] [IMAGE]
//
//     c++ -std=c++17 describe.cpp $(pkg-config --cflags --libs pyrex) -o describe

#include <iostream>
#include <pyrex.hpp>

int main(int argc, char **argv) try {
  const char *model = argc > 1 ? argv[1] : "models/shapes";
  const char *image = argc > 2 ? argv[2] : "models/shapes/examples/red_circle.png";

  auto engine = pyrex::engine::open(model);
  pyrex::prompt prompt;
  prompt.add_turn("user").add_image_file(image).add_text("Describe this image.");

  auto request = engine.submit(prompt);
  for (const auto &event : request) std::cout << event.text() << std::flush;
  std::cout << '\n';
} catch (const pyrex::error &error) {
  std::cerr << pyrex_status_name(error.status()) << ": " << error.what() << '\n';
  return 1;
}
