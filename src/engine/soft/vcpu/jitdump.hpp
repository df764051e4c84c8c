// Tells perf what translated code is (Linux tools/perf/Documentation/jitdump-specification.txt): perf record -k mono, then
// perf inject --jit. The file is jit-PID.dump in a folder; perf learns of it by a mapping of its first page.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace lodge::engine::soft {

class JitDump {
 public:
  [[nodiscard]] static Result<std::unique_ptr<JitDump>> create(const std::string& folder);
  ~JitDump();
  JitDump(const JitDump&) = delete;
  JitDump& operator=(const JitDump&) = delete;

  // Code that lies at `address` for execution and at `bytes` to be read. One thread at a time. What cannot be written is left out.
  void add(const std::string& name, const uint8_t* address, const uint8_t* bytes, uint64_t size);

 private:
  JitDump(Fd file, void* marker) : file_(std::move(file)), marker_(marker) {}

  Fd file_;
  void* marker_;
  uint64_t index_ = 0;
};

}  // namespace lodge::engine::soft
