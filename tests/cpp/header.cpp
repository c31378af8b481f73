// pyrex.hpp needs nothing before it, and may be in two files of one program.
#include <pyrex.hpp>

pyrex::prompt made_elsewhere();

pyrex::prompt made_elsewhere() { return pyrex::prompt(); }
