// Where a test case lives: the same linear addresses natively and in the guest, so that pointers in registers are equal.
//
// All areas but one lie below 2 GiB, in reach of 32-bit code and of sign-extended displacements. What lies between them is
// unmapped on both sides. 16-bit code reaches the same pages through segments of a local descriptor table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lodge::oracle {

enum class Mode : uint8_t { Code16, Code32, Code64 };
constexpr unsigned bits(Mode mode) { return mode == Mode::Code16 ? 16 : mode == Mode::Code32 ? 32 : 64; }

inline constexpr uint64_t kPage = 4096;

struct Area {
  uint64_t linear;
  uint32_t pages;
  bool writable;
  bool executable;
  uint32_t offset;  // of its first byte in the image of all areas
};

inline constexpr uint64_t kCode = 0x10000000;
inline constexpr uint64_t kData = 0x20000000;  // pages 0, 1: RW; 2: read-only; 3: not mapped; 4: RW
inline constexpr uint64_t kStack = 0x20100000;
inline constexpr uint64_t kHigh = 0x123456789000;
inline constexpr std::array<Area, 6> kAreas = {{
    {kCode, 2, false, true, 0x0000},
    {kData, 2, true, false, 0x2000},
    {kData + 2 * kPage, 1, false, false, 0x4000},
    {kData + 4 * kPage, 1, true, false, 0x5000},
    {kStack, 2, true, false, 0x6000},
    {kHigh, 2, true, false, 0x8000},
}};
inline constexpr size_t kImageSize = 0xa000;
using Image = std::array<uint8_t, kImageSize>;

// The image offset of a linear address, or -1 where nothing is mapped.
constexpr int64_t image_offset(uint64_t linear) {
  for (const Area& area : kAreas) {
    if (linear >= area.linear && linear - area.linear < area.pages * kPage) return int64_t(area.offset + (linear - area.linear));
  }
  return -1;
}

// Code is INT3 wherever no instruction under test stands: the instruction after it, and a branch's target, stop the run.
inline constexpr uint8_t kStop = 0xcc;

// 16-bit segments: their offsets of the areas' first bytes are page-aligned and not 0.
inline constexpr uint64_t kCode16Base = kCode - 0x3000;
inline constexpr uint64_t kData16Base = kData - 0x2000;
inline constexpr uint64_t kExtra16Base = kData - 0x4000;
inline constexpr uint64_t kStack16Base = kStack - 0xe000;

// ESP's upper half when 16-bit code starts: IRET to a 16-bit stack segment leaves it as it was before (SDM vol. 2A, IRET; the reason
// for Linux's espfix). Natively it is the page of that IRET's own frame, which the guest does not have: differences() lets what
// touches it pass.
inline constexpr uint64_t kEspHigh16 = 0x20200000;

// An entry of the local descriptor table, in the terms of modify_ldt(2).
struct LdtEntry {
  uint32_t base;
  uint32_t limit;
  bool is_32bit;
  uint8_t contents;  // 0: data, 1: expand-down data, 2: code
  bool read_exec_only;
  bool limit_in_pages;
  bool not_present;
};
inline constexpr std::array<LdtEntry, 11> kLdt = {{
    {kCode16Base, 0xffff, false, 2, false, false, false},
    {kData16Base, 0xffff, false, 0, false, false, false},
    {kStack16Base, 0xffff, false, 0, false, false, false},
    {kExtra16Base, 0x8fff, false, 0, false, false, false},
    {kData, 0x17ff, true, 0, false, false, false},           // 32-bit, ends in the middle of the second page
    {kData - 0x1000, 0x1ffe, true, 1, false, false, false},  // expand-down: valid above 0x1ffe
    {kData, 0xfffff, true, 0, true, true, false},            // read-only
    {kData, 0xfffff, true, 0, false, true, true},            // not present
    {0, 0xfffff, true, 2, true, true, false},                // execute-only code
    {kCode16Base, 0xffff, false, 2, false, false, false},    // readable 16-bit code
    {kStack16Base, 0xefff, false, 1, false, false, false},   // 16-bit expand-down stack: offsets 0xf000 to 0xffff
}};
constexpr uint16_t ldt_selector(unsigned index) { return uint16_t(index << 3 | 7); }
inline constexpr uint16_t kSelCode16 = ldt_selector(0);
inline constexpr uint16_t kSelData16 = ldt_selector(1);
inline constexpr uint16_t kSelStack16 = ldt_selector(2);
inline constexpr uint16_t kSelExtra16 = ldt_selector(3);

// Linux's own global descriptors, which the guest's table repeats.
inline constexpr uint16_t kSelUserCode32 = 0x23;
inline constexpr uint16_t kSelUserData = 0x2b;
inline constexpr uint16_t kSelUserCode64 = 0x33;
inline constexpr std::array<uint64_t, 16> kGdt = {
    0,
    0x00cf9b000000ffff,  // 0x08: kernel code, 32-bit
    0x00af9b000000ffff,  // 0x10: kernel code
    0x00cf93000000ffff,  // 0x18: kernel data
    0x00cffb000000ffff,  // 0x20: user code, 32-bit
    0x00cff3000000ffff,  // 0x28: user data
    0x00affb000000ffff,  // 0x30: user code
    0,
    0,  // 0x40: TSS (filled in by the guest)
    0,
    0,  // 0x50: LDT (filled in by the guest)
    0,
    0,
    0,
    0,
    0,
};

// The descriptor that Linux makes of an LDT entry (fill_ldt()).
constexpr uint64_t descriptor(const LdtEntry& e) {
  const uint64_t type = (e.read_exec_only ? 0 : 2) | uint64_t(e.contents) << 2 | 1;
  return (e.limit & 0xffff) | uint64_t(e.base & 0xffffff) << 16 | type << 40 | uint64_t{1} << 44 | uint64_t{3} << 45 |
         uint64_t(!e.not_present) << 47 | uint64_t(e.limit >> 16 & 0xf) << 48 | uint64_t(e.is_32bit) << 54 |
         uint64_t(e.limit_in_pages) << 55 | uint64_t(e.base >> 24) << 56;
}
constexpr uint64_t descriptor_of(uint16_t selector) {
  const unsigned index = selector >> 3;
  if (selector & 4) return index < kLdt.size() ? descriptor(kLdt[index]) : 0;
  return index < kGdt.size() ? kGdt[index] : 0;
}
constexpr uint32_t descriptor_base(uint64_t d) { return uint32_t((d >> 16 & 0xffffff) | (d >> 56) << 24); }
constexpr uint32_t descriptor_limit(uint64_t d) {
  const uint32_t limit = uint32_t((d & 0xffff) | (d >> 48 & 0xf) << 16);
  return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

}  // namespace lodge::oracle
