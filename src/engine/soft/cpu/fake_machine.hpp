// For the tests of cpu/: a processor over a flat megabyte of memory in which linear addresses are offsets, descriptor tables to try
// things on, and soft_guarded()/soft_unwind() by setjmp.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft::fake {

// Selectors of the GDT that Machine builds, RPL 0.
enum Selector : uint32_t {
  kCode32 = 0x08,
  kData = 0x10,
  kUserCode32 = 0x18,
  kUserData = 0x20,
  kCode64 = 0x28,
  kUserCode64 = 0x30,
  kConforming = 0x38,
  kReadOnly = 0x40,    // DPL 3
  kAbsentData = 0x48,  // DPL 3
  kExecuteOnly = 0x50,
  kCode16 = 0x58,
  kData16 = 0x60,  // 64 KiB, B clear
  kLdt = 0x68,
  kTss = 0x78,         // 16 bytes, busy
  kFreeTss = 0x88,     // 16 bytes, available
  kCallGate = 0x98,    // DPL 3, to kCode32:0x1234, two parameters
  kAbsentCode = 0xa0,  // DPL 0
  kTaskGate = 0xa8,    // to kFreeTss
  kCallGate64 = 0xb0,  // 16 bytes, DPL 3, to kCode64
  kAbsentUserStack = 0xc0,
  kExpandDown = 0xc8,  // valid above 0xfff, B set
  kCallGate16 = 0xd0,  // DPL 0, to kCode16:0x20
  kBothCode = 0xd8,    // L and D
  kBeyond = 0x200,     // outside the limit
};

constexpr uint32_t kGdt = 0x1000, kLdtBase = 0x1800, kIdt = 0x2000, kTssBase = 0x4000, kFreeTssBase = 0x5000, kKernelStack = 0x9000,
                   kUserStack = 0xb000, kIstStack = 0xd000, kMemory = 1 << 20;

struct Machine {
  Machine();
  ~Machine();

  CpuState& c;
  std::vector<uint8_t> memory;
  std::set<uint64_t> absent;     // pages (linear >> 12) that fault
  std::set<uint64_t> read_only;  // pages that fault when written
  std::vector<std::string> flushes;
  bool pdptes_valid = true;
  std::map<std::pair<uint32_t, uint32_t>, std::array<uint32_t, 4>> cpuid;
  uint64_t tsc = 1000, cr8 = 0, apic_base = 0xfee00900, tsc_deadline = 0;
  std::map<uint32_t, uint64_t> other_msrs;  // x2APIC and KVM MSRs, of those that exist
  VcpuHooks hooks{};

  // Runs it guarded. "" or the exception, such as "#GP(0x10)" or "#UD"; details in c.exception.
  std::string run(const std::function<void()>& function);

  template <typename T>
  T get(uint64_t at) const {
    T value;
    __builtin_memcpy(&value, &memory.at(at), sizeof value);
    return value;
  }
  template <typename T>
  void put(uint64_t at, T value) {
    __builtin_memcpy(&memory.at(at), &value, sizeof value);
  }
  void vendor(bool amd);
  void set_descriptor(uint32_t selector, uint64_t value) { put<uint64_t>(kGdt + (selector & ~7u), value); }
  void set_gate32(uint32_t vector, uint32_t selector, uint32_t offset, uint32_t type_dpl_p);
  void set_gate64(uint32_t vector, uint32_t selector, uint64_t offset, uint32_t type_dpl_p, uint32_t ist = 0);

  // Modes, with flat segments of the CPL and RSP on that level's stack; rip 0x100, next_rip 0x102.
  void real();
  void protected32(uint32_t cpl);
  void long64(uint32_t cpl);
  void v86(uint32_t iopl);
};

// An eight-byte descriptor. `access` is bits 8-15 of the upper dword, `flags` its bits 20-23.
constexpr uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t access, uint32_t flags) {
  return (limit & 0xffffull) | (base & 0xffffffull) << 16 | static_cast<uint64_t>(access) << 40 | (limit & 0xf0000ull) << 32 |
         static_cast<uint64_t>(flags) << 52 | (base & 0xff000000ull) << 32;
}
constexpr uint64_t gate(uint32_t selector, uint32_t offset, uint32_t access, uint32_t parameters = 0) {
  return (offset & 0xffffull) | static_cast<uint64_t>(selector) << 16 | static_cast<uint64_t>(parameters) << 32 |
         static_cast<uint64_t>(access) << 40 | (offset & 0xffff0000ull) << 32;
}

}  // namespace lodge::engine::soft::fake
