#include "machine/boot_state.hpp"

#include <array>
#include <cstring>

#include "machine/boot_layout.hpp"

namespace lodge::machine {

namespace {

constexpr uint64_t kCr0Pe = 1 << 0, kCr0Et = 1 << 4, kCr0Pg = uint64_t{1} << 31;
constexpr uint64_t kCr4Pae = 1 << 5;
constexpr uint64_t kEferLme = 1 << 8, kEferLma = 1 << 10;
constexpr uint64_t kFlagsReserved = 2;

kvm_segment flat(uint16_t selector, uint8_t type, bool long_mode) {
  return {.base = 0,
          .limit = 0xffffffff,
          .selector = selector,
          .type = type,
          .present = 1,
          .dpl = 0,
          .db = static_cast<uint8_t>(long_mode ? 0 : 1),
          .s = 1,
          .l = static_cast<uint8_t>(long_mode ? 1 : 0),
          .g = 1};
}

void set_segments(kvm_sregs& sregs, bool long_mode) {
  constexpr uint8_t kCode = 0xb, kData = 0x3;  // execute/read and read/write, accessed
  sregs.cs = flat(kBootCs, kCode, long_mode);
  for (kvm_segment* segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) *segment = flat(kBootDs, kData, false);
  // A task register with the smallest TSS: entries into guest mode need a busy one.
  sregs.tr = {.base = 0, .limit = 0x67, .selector = 0, .type = 0xb, .present = 1};
  sregs.gdt = {.base = kBootGdt, .limit = 4 * 8 - 1};
  sregs.idt = {.base = 0, .limit = 0};
}

}  // namespace

Result<> set_entry_state(engine::Vcpu& vcpu, const Entry& entry) {
  const bool long_mode = entry.mode == Entry::Mode::Long64;
  kvm_sregs sregs = TRY(vcpu.get_sregs());
  set_segments(sregs, long_mode);
  sregs.cr0 = kCr0Pe | kCr0Et | (long_mode ? kCr0Pg : 0);
  sregs.cr3 = long_mode ? kBootPageTables : 0;
  sregs.cr4 = long_mode ? kCr4Pae : 0;
  sregs.efer = long_mode ? kEferLme | kEferLma : 0;
  TRY(vcpu.set_sregs(sregs));
  const kvm_regs regs{.rbx = entry.rbx, .rsi = entry.rsi, .rip = entry.instruction, .rflags = kFlagsReserved};
  return vcpu.set_regs(regs);
}

Result<> set_firmware_state(engine::Vcpu& vcpu, bool first) {
  constexpr uint32_t kMtrrDefaultType = 0x2ff;
  constexpr uint64_t kEnableWriteBack = 0x800 | 6;
  const std::array<kvm_msr_entry, 1> msrs{{{.index = kMtrrDefaultType, .reserved = 0, .data = kEnableWriteBack}}};
  TRY(vcpu.set_msrs(msrs));  // an engine without MTRRs refuses it, and its CPUID says so

  constexpr size_t kLvtLint0 = 0x350, kLvtLint1 = 0x360;
  constexpr uint32_t kExtInt = 0x700, kNmi = 0x400;
  kvm_lapic_state lapic = TRY(vcpu.get_lapic());
  if (first) std::memcpy(lapic.regs + kLvtLint0, &kExtInt, sizeof kExtInt);
  std::memcpy(lapic.regs + kLvtLint1, &kNmi, sizeof kNmi);
  return vcpu.set_lapic(lapic);
}

}  // namespace lodge::machine
