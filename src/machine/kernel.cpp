#include "machine/kernel.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.hpp"
#include "machine/boot_layout.hpp"
#include "machine/config.hpp"
#include "machine/multiboot.hpp"
#include "machine/payload.hpp"

namespace lodge::machine {

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kUnpackedLimit = kGiB;
constexpr uint8_t kLoaderUndefined = 0xff;  // type_of_loader: none of the registered ones
constexpr uint64_t kEntry64Offset = 0x200;  // boot protocol, "64-bit Boot Protocol"

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Result<> store(memory::GuestMemory& memory, uint64_t at, std::span<const std::byte> bytes) {
  if (memory.write(at, bytes)) return {};
  return fail(ErrorKind::Usage, "{} bytes at guest-physical {:#x} do not fit into the guest's memory: give it more (-m)", bytes.size(), at);
}

Result<> store_command_line(memory::GuestMemory& memory, std::string_view line, uint64_t maximum) {
  if (line.size() > maximum || line.size() + 1 > kCommandLineMaximum)
    return fail(ErrorKind::Usage, "--append has {} bytes; this kernel takes at most {}", line.size(),
                std::min(maximum, kCommandLineMaximum - 1));
  std::vector<char> text(line.begin(), line.end());
  text.push_back('\0');
  return store(memory, kCommandLine, std::as_bytes(std::span(text)));
}

// Boot protocol, "64-bit Boot Protocol": the kernel, boot_params and the command line must be mapped one to one.
Result<> store_identity_map(memory::GuestMemory& memory) {
  constexpr uint64_t kPresentWritable = 3, kLargePage = 0x80, kEntries = 512, kDirectories = 4;
  std::vector<uint64_t> tables((2 + kDirectories) * kEntries);
  tables[0] = (kBootPageTables + kPage) | kPresentWritable;
  for (uint64_t i = 0; i < kDirectories; ++i) tables[kEntries + i] = (kBootPageTables + (2 + i) * kPage) | kPresentWritable;
  for (uint64_t i = 0; i < kDirectories * kEntries; ++i) tables[2 * kEntries + i] = i << 21 | kPresentWritable | kLargePage;
  return store(memory, kBootPageTables, std::as_bytes(std::span(tables)));
}

Result<> store_gdt(memory::GuestMemory& memory, Entry::Mode mode) {
  constexpr uint64_t kCode64 = 0x00af9b000000ffff, kCode32 = 0x00cf9b000000ffff, kData = 0x00cf93000000ffff;
  const std::array<uint64_t, 4> gdt{0, 0, mode == Entry::Mode::Long64 ? kCode64 : kCode32, kData};
  return store(memory, kBootGdt, bytes_of(gdt));
}

boot_params make_boot_params(const setup_header& header, const MemoryMap& map, const Kernel::Boot& boot, uint64_t initrd_at) {
  boot_params params{};
  params.hdr = header;
  params.hdr.type_of_loader = kLoaderUndefined;
  params.hdr.code32_start = kHighMemory;
  params.hdr.cmd_line_ptr = static_cast<uint32_t>(kCommandLine);
  params.hdr.ramdisk_image = static_cast<uint32_t>(initrd_at);
  params.hdr.ramdisk_size = static_cast<uint32_t>(boot.initrd.size());
  params.ext_ramdisk_image = static_cast<uint32_t>(initrd_at >> 32);
  params.ext_ramdisk_size = static_cast<uint32_t>(uint64_t{boot.initrd.size()} >> 32);
  params.acpi_rsdp_addr = boot.rsdp;
  params.alt_mem_k = static_cast<uint32_t>((map.low_end - kHighMemory) >> 10);
  for (const E820Entry& entry : e820(map))
    params.e820_table[params.e820_entries++] = {entry.base, entry.size, static_cast<uint32_t>(entry.type)};
  return params;
}

// Xen public/arch-x86/hvm/start_info.h, version 1.
struct HvmStartInfo {
  uint32_t magic = 0x336ec578;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t module_count = 0;
  uint64_t module_list = 0;
  uint64_t command_line = 0;
  uint64_t rsdp = 0;
  uint64_t memory_map = 0;
  uint32_t memory_map_entries = 0;
  uint32_t reserved = 0;
};
struct HvmModule {
  uint64_t address, size, command_line, reserved;
};
struct HvmMemoryMapEntry {
  uint64_t address, size;
  uint32_t type, reserved;
};
static_assert(sizeof(HvmStartInfo) == 56 && sizeof(HvmModule) == 32 && sizeof(HvmMemoryMapEntry) == 24);

}  // namespace

Result<Kernel> Kernel::create(std::vector<uint8_t> file, std::string path, bool unpack_natively) {
  Kernel kernel;
  kernel.path_ = std::move(path);
  kernel.file_ = std::move(file);
  const auto name_it = [&](const Error& error) { return fail(error.kind, "kernel {}: {}", kernel.path_, error.message); };
  if (kernel.file_.empty()) return fail(ErrorKind::Usage, "kernel {}: the file is empty", kernel.path_);

  if (!looks_like_bzimage(kernel.file_)) {
    if (looks_like_multiboot(kernel.file_))
      if (const auto elf = parse_elf(kernel.file_); !elf || !elf->pvh_entry)
        return fail(ErrorKind::Usage, "kernel {}: a multiboot kernel, which a BIOS starts: add --machine pc", kernel.path_);
    if (identify_compression(kernel.file_) != Compression::None)
      return fail(ErrorKind::Usage,
                  "kernel {}: not a Linux kernel: neither a bzImage (/boot/vmlinuz-...) nor an ELF vmlinux; with --machine pc "
                  "a BIOS also starts multiboot kernels, packed or not",
                  kernel.path_);
    auto elf = parse_elf(kernel.file_);
    if (!elf) return name_it(elf.error());
    if (!elf->pvh_entry)
      return fail(ErrorKind::Usage, "kernel {}: an ELF file without a PVH entry (CONFIG_PVH); use the bzImage of that kernel",
                  kernel.path_);
    kernel.elf_ = *std::move(elf);
    return kernel;
  }

  auto image = parse_bzimage(kernel.file_);
  if (!image) return name_it(image.error());
  kernel.bzimage_ = *image;
  if (!unpack_natively || image->payload.empty() || identify_compression(image->payload) == Compression::Unknown) return kernel;
  auto unpacked = unpack(image->payload, kUnpackedLimit);
  if (!unpacked) return name_it(unpacked.error());
  kernel.unpacked_ = *std::move(unpacked);
  auto elf = parse_elf(kernel.unpacked_);
  if (elf) {
    kernel.elf_ = *std::move(elf);
  } else {
    log::debug("kernel {}: {}; it unpacks itself", kernel.path_, elf.error().message);
    kernel.unpacked_ = {};
  }
  return kernel;
}

Result<> Kernel::need_unpacked() const {
  if (!unpacked() || !unpacked_.empty()) return {};
  unpacked_ = TRY(unpack(bzimage_->payload, kUnpackedLimit));
  elf_ = TRY(parse_elf(unpacked_));
  return {};
}

Result<> Kernel::load_segments(memory::GuestMemory& memory) const {
  TRY(need_unpacked());
  for (const ElfImage::Segment& segment : elf_->segments) {
    // Memory is zero before a boot, which is what lies behind the bytes of the file.
    if (auto stored = store(memory, segment.physical, std::as_bytes(segment.bytes)); !stored) return stored;
  }
  unpacked_ = std::vector<uint8_t>();
  return {};
}

uint64_t Kernel::bzimage_end() const { return elf_ ? elf_->end() : bzimage_->end(); }

Result<uint64_t> Kernel::place_initrd(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot, uint64_t kernel_end,
                                      uint64_t highest, bool may_be_above_4g) const {
  if (kernel_end > map.low_end)
    return fail(ErrorKind::Usage, "kernel {} needs at least {} MiB of memory, the guest has {} MiB: give it more (-m)", path_,
                mib_up(kernel_end), (map.low_end + map.above_size) / kMiB);
  if (boot.initrd.empty()) return 0;
  const uint64_t size = (boot.initrd.size() + kPage - 1) / kPage * kPage;
  const uint64_t limit = std::min(map.low_end, highest) / kPage * kPage;
  uint64_t at = 0;
  if (limit >= kernel_end && limit - kernel_end >= size)
    at = limit - size;
  else if (may_be_above_4g && map.above_size >= size)
    at = kAbove4G + map.above_size - size;
  else
    return fail(ErrorKind::Usage, "initrd {} ({} MiB) does not fit beside the kernel: give the guest at least {} MiB (-m)",
                boot.initrd_path, mib_up(boot.initrd.size()), mib_up(kernel_end + size));
  if (auto stored = store(memory, at, std::as_bytes(boot.initrd)); !stored) return std::unexpected(stored.error());
  return at;
}

Result<Entry> Kernel::place_bzimage(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const {
  const setup_header& header = bzimage_->header;
  const bool long_mode = elf_ ? elf_->is_64bit : bzimage_->has_64bit_entry();
  const bool above_4g = header.version >= 0x20c && (header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G);
  const uint64_t initrd_at = TRY(place_initrd(memory, map, boot, bzimage_end(), uint64_t{header.initrd_addr_max} + 1, above_4g));
  if (elf_) {
    if (elf_->lowest() < kHighMemory)
      return fail(ErrorKind::Usage, "kernel {} wants to be loaded at {:#x}, below 1 MiB", path_, elf_->lowest());
    TRY(load_segments(memory));
  } else {
    TRY(store(memory, kHighMemory, std::as_bytes(bzimage_->protected_mode)));
  }
  TRY(store_command_line(memory, boot.command_line, header.cmdline_size));
  const boot_params params = make_boot_params(header, map, boot, initrd_at);
  TRY(store(memory, kBootParams, bytes_of(params)));

  Entry entry{.mode = long_mode ? Entry::Mode::Long64 : Entry::Mode::Protected32, .rsi = kBootParams};
  entry.instruction = elf_ ? elf_->entry : kHighMemory + (long_mode ? kEntry64Offset : 0);
  TRY(store_gdt(memory, entry.mode));
  if (long_mode) TRY(store_identity_map(memory));
  return entry;
}

Result<Entry> Kernel::place_pvh(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const {
  const uint64_t initrd_at = TRY(place_initrd(memory, map, boot, elf_->end(), kHole, false));
  if (elf_->lowest() < kHighMemory)
    return fail(ErrorKind::Usage, "kernel {} wants to be loaded at {:#x}, below 1 MiB", path_, elf_->lowest());
  TRY(load_segments(memory));
  TRY(store_command_line(memory, boot.command_line, kCommandLineMaximum - 1));

  std::vector<HvmMemoryMapEntry> entries;
  for (const E820Entry& e : e820(map)) entries.push_back({e.base, e.size, static_cast<uint32_t>(e.type), 0});
  HvmStartInfo info{.command_line = kCommandLine, .rsdp = boot.rsdp};
  const uint64_t module_at = kPvhStartInfo + sizeof info;
  info.memory_map = module_at + sizeof(HvmModule);
  info.memory_map_entries = static_cast<uint32_t>(entries.size());
  if (!boot.initrd.empty()) {
    info.module_count = 1;
    info.module_list = module_at;
    TRY(store(memory, module_at, bytes_of(HvmModule{initrd_at, boot.initrd.size(), 0, 0})));
  }
  TRY(store(memory, kPvhStartInfo, bytes_of(info)));
  TRY(store(memory, info.memory_map, std::as_bytes(std::span(entries))));
  TRY(store_gdt(memory, Entry::Mode::Protected32));
  return Entry{.mode = Entry::Mode::Protected32, .instruction = *elf_->pvh_entry, .rbx = kPvhStartInfo};
}

Result<Entry> Kernel::place(memory::GuestMemory& memory, const MemoryMap& map, const Boot& boot) const {
  return bzimage_ ? place_bzimage(memory, map, boot) : place_pvh(memory, map, boot);
}

}  // namespace lodge::machine
