// What the C++ programs share: a check that ends the program, and the model and picture they are given.

#ifndef CHECK_HPP
#define CHECK_HPP

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
      std::exit(1);                                                             \
    }                                                                           \
  } while (0)

inline constexpr const char *ANSWER = "This is a simple image of a solid red circle on a white background.";

#endif
