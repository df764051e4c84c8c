// What the host has for guests besides the processor: memory, huge pages, and the kernel services that Lodge uses.
#pragma once

#include <cstdint>
#include <string>

#include "host/sources.hpp"

namespace lodge::host {

struct Resources {
  uint64_t memory_total = 0;      // bytes
  uint64_t memory_available = 0;  // bytes that can be had without swapping
  uint64_t hugepages_total = 0;   // reserved pages of the default size
  uint64_t hugepages_free = 0;
  uint64_t hugepage_size = 0;         // bytes
  std::string transparent_hugepages;  // always, madvise, never; empty if the kernel has none
  // 0 where it works, else the errno of the refusal.
  int io_uring = 0;
  int userfaultfd = 0;
  int tun = 0;
  int executable_memfd = 0;
  bool avx = false;
  bool user_fsgsbase = false;
};

[[nodiscard]] Resources read_resources(const Sources& sources);

}  // namespace lodge::host
