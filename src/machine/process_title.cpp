#include "machine/process_title.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

namespace lodge::machine {

void set_process_title(int argc, char** argv, const std::string& name) {
  const std::string title = "lodge " + name;
  prctl(PR_SET_NAME, title.substr(0, 15).c_str());
  if (argc < 1) return;
  // The arguments lie one behind the other; ps reads that stretch of memory.
  char* end = argv[0] + std::strlen(argv[0]) + 1;
  for (int i = 1; i < argc && argv[i] == end; ++i) end += std::strlen(argv[i]) + 1;
  const auto room = static_cast<size_t>(end - argv[0]);
  std::memset(argv[0], 0, room);
  std::memcpy(argv[0], title.data(), std::min(title.size(), room - 1));
}

}  // namespace lodge::machine
