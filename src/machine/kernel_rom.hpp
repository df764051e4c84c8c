// A kernel that a PC's BIOS starts: Linux by its real-mode entry, or a multiboot kernel with modules. An option ROM of our own
// (kernel_rom.S) stands first in the boot order and carries out a plan:
//
//   offset  bytes
//     0       4    0: Linux; 1: multiboot
//     4       4    a multiboot kernel's entry
//     8       4    how many transfers follow
//    12      16    each: a request of fw_cfg's DMA, ready to be made
//
// Threads: the main thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "devices/fw_cfg.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

// fw_cfg's file with the ROM, and where the boot order has it.
constexpr std::string_view kKernelRomFile = "genroms/lodge-kernel.rom", kKernelRomPath = "/rom@genroms/lodge-kernel.rom";

// What --initrd names: one file; of multiboot kernels "FILE[ WORDS],FILE..." (a comma in a name is written twice).
struct ModuleName {
  std::string file, words;
};
[[nodiscard]] std::vector<ModuleName> parse_module_names(std::string_view text);

struct KernelModule {
  ModuleName name;
  std::vector<uint8_t> bytes;
};

class BiosKernel {
 public:
  // `file`: the bytes of the file `path` (for messages). ErrorKind::Usage when it is neither a bzImage nor, packed or not, a multiboot
  // kernel.
  static Result<BiosKernel> create(std::vector<uint8_t> file, std::string path);

  [[nodiscard]] bool is_multiboot() const { return multiboot_; }
  // Puts the ROM, its plan and what that needs among fw_cfg's items. ErrorKind::Usage when memory does not suffice. Linux has one module at
  // most, its initial RAM disk.
  [[nodiscard]] Result<> offer(devices::FwCfg& fw_cfg, const MemoryMap& map, std::string_view command_line,
                               std::span<const KernelModule> modules) const;

 private:
  BiosKernel(std::vector<uint8_t> file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  class Plan;
  [[nodiscard]] Result<> plan_linux(Plan& plan, const MemoryMap& map, std::string_view command_line,
                                    std::span<const KernelModule> modules) const;
  [[nodiscard]] Result<> plan_multiboot(Plan& plan, const MemoryMap& map, std::string_view command_line,
                                        std::span<const KernelModule> modules) const;

  std::vector<uint8_t> file_;
  std::string path_;
  bool multiboot_ = false;
};

}  // namespace lodge::machine
