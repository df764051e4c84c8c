// The guest's kernel: read and unpacked once, placed into memory at every boot.
//
// bzImage: the compressed kernel inside is unpacked here, natively, when its format is known (gzip, xz, zstd,
// lz4), loaded where it is linked to run, and entered as Linux's own decompressor would: 64-bit kernels at
// startup_64 with the first 4 GiB mapped one to one, 32-bit kernels at startup_32 without paging, both with
// boot_params in (R|E)SI. Not relocated, so it needs no relocations; a kernel built with KASLR runs at its
// linked address whatever its command line says. Otherwise the bzImage's own entry is taken, 64-bit or 32-bit.
//
// ELF vmlinux: through PVH (Xen docs/misc/pvh.pandoc).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "machine/bzimage.hpp"
#include "machine/elf.hpp"
#include "machine/memory_map.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {

// How the first vCPU starts.
struct Entry {
  enum class Mode { Long64, Protected32 } mode = Mode::Long64;
  uint64_t instruction = 0;
  uint64_t rsi = 0;  // boot_params, or 0
  uint64_t rbx = 0;  // hvm_start_info, or 0
};

class Kernel {
 public:
  // Reads nothing: `file` are the bytes of the file called `path` (for messages).
  static Result<Kernel> create(std::vector<uint8_t> file, std::string path, bool unpack_natively = true);

  struct Boot {
    std::string_view command_line;
    std::span<const uint8_t> initrd;
    std::string_view initrd_path;  // for messages
    uint64_t rsdp = 0;
  };
  // Writes kernel, initrd and boot data; one thread at a time. ErrorKind::Usage when the memory does not suffice.
  [[nodiscard]] Result<Entry> place(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const;

  [[nodiscard]] bool unpacked() const { return bzimage_ && elf_; }

 private:
  Kernel() = default;
  [[nodiscard]] Result<Entry> place_bzimage(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const;
  [[nodiscard]] Result<Entry> place_pvh(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const;
  [[nodiscard]] uint64_t bzimage_end() const;
  [[nodiscard]] Result<> need_unpacked() const;
  [[nodiscard]] Result<> load_segments(memory::GuestMemory& memory) const;
  [[nodiscard]] Result<uint64_t> place_initrd(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot, uint64_t kernel_end,
                                              uint64_t highest, bool may_be_above_4g) const;

  std::string path_;
  std::vector<uint8_t> file_;
  // Some ten megabytes that only place() needs: given back behind it, and unpacked again for the next boot.
  mutable std::vector<uint8_t> unpacked_;
  std::optional<BzImage> bzimage_;
  mutable std::optional<ElfImage> elf_;  // its segments point into file_ or unpacked_
};

}  // namespace lodge::machine
