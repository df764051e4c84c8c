// One instruction on the host's own processor, in this process.
//
// 64-bit code runs directly, 32-bit code in the kernel's compatibility code segment, 16-bit code in one of a local
// descriptor table. Every run ends in an exception, which the kernel delivers as a signal; the handler keeps what the
// frame says and leaves without a sigreturn.
//
// One object per process (it owns fixed addresses and the LDT), used by one thread.
#pragma once

#include <memory>

#include "base/error.hpp"
#include "state.hpp"

namespace lodge::oracle {

class Native {
 public:
  // Unsupported: the kernel has no modify_ldt with 16-bit segments, or no FSGSBASE.
  static Result<std::unique_ptr<Native>> create();
  ~Native();

  void run(const Case& test, Outcome& out);

 private:
  Native() = default;
  Result<> map_areas();
  Result<> load_ldt();

  uint8_t* image_ = nullptr;  // the areas' pages, writable
  int fd_ = -1;
  std::unique_ptr<uint8_t[]> signal_stack_;
};

}  // namespace lodge::oracle
