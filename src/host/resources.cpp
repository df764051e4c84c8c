#include "host/resources.hpp"

#include <cerrno>
#include <sstream>

namespace lodge::host {
namespace {

// A field of /proc/meminfo, "MemTotal:       24684096 kB": the number as it stands.
uint64_t meminfo_field(const std::string& text, const std::string& field) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(field + ":")) continue;
    uint64_t value = 0;
    std::istringstream(line.substr(field.size() + 1)) >> value;
    return value;
  }
  return 0;
}

// The kernel marks the setting in force with brackets: "always [madvise] never".
std::string chosen_word(const std::string& text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']', open == std::string::npos ? 0 : open);
  return open == std::string::npos || close == std::string::npos ? "" : text.substr(open + 1, close - open - 1);
}

}  // namespace

Resources read_resources(const Sources& sources) {
  constexpr uint64_t kKib = 1024;
  const std::string meminfo = read_text(sources, "proc/meminfo").value_or("");
  return Resources{.memory_total = meminfo_field(meminfo, "MemTotal") * kKib,
                   .memory_available = meminfo_field(meminfo, "MemAvailable") * kKib,
                   .hugepages_total = meminfo_field(meminfo, "HugePages_Total"),
                   .hugepages_free = meminfo_field(meminfo, "HugePages_Free"),
                   .hugepage_size = meminfo_field(meminfo, "Hugepagesize") * kKib,
                   .transparent_hugepages = chosen_word(read_text(sources, "sys/kernel/mm/transparent_hugepage/enabled").value_or("")),
                   .io_uring = sources.io_uring(),
                   .userfaultfd = sources.userfaultfd(),
                   .tun = exists(sources, "dev/net/tun") ? sources.open_tun(sources.root / "dev/net/tun") : ENOENT,
                   .executable_memfd = sources.executable_memfd(),
                   .avx = sources.avx(),
                   .user_fsgsbase = sources.user_fsgsbase()};
}

}  // namespace lodge::host
