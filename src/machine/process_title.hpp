// How ps shows this process.
#pragma once

#include <string>

namespace lodge::machine {

// "lodge NAME" as the process's command line and, cut to 15 bytes, as its thread's name. `argv` is main()'s, whose
// memory is overwritten; nothing else may point into it any more. A longer name is cut.
void set_process_title(int argc, char** argv, const std::string& name);

}  // namespace lodge::machine
