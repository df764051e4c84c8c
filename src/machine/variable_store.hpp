// Where UEFI firmware's variables are between runs: a file of the machine's own, made from the firmware's template when it is not there.
//
// Threads: bytes() are the flash chip's; save() from a vCPU's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {

class VariableStore {
 public:
  // `path` empty: the variables go with the process. ErrorKind::Usage: the file is no store of this firmware's, or in use.
  static Result<std::unique_ptr<VariableStore>> open(const std::string& path, std::span<const uint8_t> fresh);
  ~VariableStore();
  VariableStore(const VariableStore&) = delete;
  VariableStore& operator=(const VariableStore&) = delete;

  [[nodiscard]] std::span<uint8_t> bytes() const;  // page-aligned
  void save(uint64_t offset, uint64_t length) const;

 private:
  VariableStore(std::string path, Fd file, std::unique_ptr<memory::GuestMemory> memory)
      : path_(std::move(path)), file_(std::move(file)), memory_(std::move(memory)) {}
  const std::string path_;
  const Fd file_;
  const std::unique_ptr<memory::GuestMemory> memory_;
};

}  // namespace lodge::machine
