// A small guest for the engine suite: memory, tables and one vCPU in a chosen mode, run to a report.
//
// Guest code is machine code, assembled beside the test that uses it (PAYLOAD). Every vector of the interrupt table leads
// to an OUT of its own, so a fault ends the run with all registers as the processor delivered it; the frame is then read
// from the guest's stack by the host. A payload that is done says so with REPORT.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/api/engine.hpp"
#include "memory/guest_memory.hpp"

// PAYLOAD(name, bits, "assembly..."): machine code for 16-, 32- or 64-bit mode, as the span name(). It is loaded at an
// address of the test's choice, so it must not depend on its own.
#define PAYLOAD(name, bits, text)                                      \
  extern "C" const std::byte lodge_payload_##name##_begin[];           \
  extern "C" const std::byte lodge_payload_##name##_end[];             \
  asm(".pushsection .rodata.lodge_payload, \"a\"\n"                    \
      ".code" #bits                                                    \
      "\n"                                                             \
      "lodge_payload_" #name "_begin:\n" text "\nlodge_payload_" #name \
      "_end:\n"                                                        \
      ".code64\n"                                                      \
      ".popsection\n");                                                \
  [[maybe_unused]] static std::span<const std::byte> name() { return {lodge_payload_##name##_begin, lodge_payload_##name##_end}; }
// Ends a run from guest code in any mode; does not change a register.
#define REPORT "out %al, $0xf5\n"

namespace lodge::engine::suite {

// The system under test, from --engine.
System& system();

// The processor below the kernel's KVM is QEMU's TCG (--processor tcg), which does not carry out all that silicon does.
bool processor_is_tcg();
#define NEEDS_SILICON(why) \
  if (processor_is_tcg()) GTEST_SKIP() << "not on QEMU's TCG: " << why

constexpr uint16_t kFaultPort = 0xf4;
constexpr uint16_t kReportPort = 0xf5;

// Guest-physical layout; linear addresses are the same but where a test maps more.
constexpr uint64_t kRamSize = 0x400000;
constexpr uint64_t kGdt = 0x1000;
constexpr uint64_t kTss = 0x1800;
constexpr uint64_t kIdt = 0x2000;
constexpr uint64_t kHandlers = 0x3000;  // 16 bytes a vector
constexpr uint64_t kCode = 0x8000;
constexpr uint64_t kStack = 0xc000;      // top
constexpr uint64_t kRsp0 = 0xd000;       // top, on entry from ring 3
constexpr uint64_t kIst1 = 0xe000;       // top
constexpr uint64_t kUserStack = 0xf000;  // top; its page is a user page
constexpr uint64_t kPml4 = 0x10000;
constexpr uint64_t kPdpt = 0x11000;
constexpr uint64_t kPdLow = 0x12000;
constexpr uint64_t kPtLow = 0x13000;   // 0..2 MiB, 4 KiB pages
constexpr uint64_t kPtData = 0x14000;  // 2..4 MiB, 4 KiB pages
constexpr uint64_t kPdHigh = 0x15000;  // 3..4 GiB, 2 MiB pages
constexpr uint64_t kUserCode = 0x20000;
constexpr uint64_t kData = 0x100000;
constexpr uint64_t kMmio = 0xd0000000;  // no RAM
constexpr uint64_t kApic = 0xfee00000;
constexpr uint64_t kIoApic = 0xfec00000;

// Selectors.
constexpr uint16_t kCode64 = 0x08;
constexpr uint16_t kFlatData = 0x10;
constexpr uint16_t kUserCode32 = 0x18 | 3;
constexpr uint16_t kUserData = 0x20 | 3;
constexpr uint16_t kUserCode64 = 0x28 | 3;
constexpr uint16_t kTaskSelector = 0x30;  // two entries in long mode
constexpr uint16_t kCode32 = 0x40;
constexpr uint16_t kCode16 = 0x48;
constexpr uint16_t kData16 = 0x50;
constexpr uint16_t kFreeSelector = 0x58;  // up to 0x7f8: for the test
constexpr uint16_t kGdtLimit = 0x7ff;

// Page table bits.
constexpr uint64_t kP = 1, kRw = 2, kUs = 4, kPwt = 8, kPcd = 16, kA = 32, kD = 64, kPs = 128, kG = 256, kNx = uint64_t{1} << 63;

constexpr uint64_t kFlagsFixed = 2;
constexpr uint64_t kCarry = 1, kTf = 0x100, kIf = 0x200, kDf = 0x400, kIopl3 = 0x3000, kNt = 0x4000, kRf = 0x10000, kVm = 0x20000,
                   kAc = 0x40000;

// Vectors.
enum Vector : int {
  DE = 0,
  DB = 1,
  NMI = 2,
  BP = 3,
  OF = 4,
  BR = 5,
  UD = 6,
  NM = 7,
  DF = 8,
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  PF = 14,
  MF = 16,
  AC = 17,
  XM = 19
};

enum class Mode { Real, Protected16, Protected32, Pae, Long, Compatibility };
const char* name_of(Mode mode);

// All of a vCPU's state that a test compares.
struct State {
  kvm_regs regs;
  kvm_sregs sregs;
  kvm_debugregs debugregs;
  kvm_vcpu_events events;
  Xsave xsave;
};
// A line for each field that differs, empty if none does.
std::string difference(const State& expected, const State& actual);

// Why a run ended.
struct Stop {
  bool reported = false;     // by REPORT
  int vector = -1;           // of the interrupt table, or -1
  uint32_t exit_reason = 0;  // KVM_EXIT_*
  bool interrupted = false;  // run() said so; timed out unless the test wanted it
};
std::ostream& operator<<(std::ostream& out, const Stop& stop);

// What the processor pushed.
struct Frame {
  uint64_t rip, cs, rflags, rsp, ss;
  uint64_t error;  // 0 if the vector has none
};

class Guest {
 public:
  explicit Guest(Mode mode, unsigned vcpus = 1);
  ~Guest();
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  [[nodiscard]] Vm& vm() { return *vm_; }
  [[nodiscard]] Vcpu& vcpu(unsigned index = 0) { return *vcpus_[index]; }
  [[nodiscard]] memory::GuestMemory& memory() { return *memory_; }

  // Memory, as a device writes it.
  void write(uint64_t gpa, std::span<const std::byte> bytes);
  void write64(uint64_t gpa, uint64_t value);
  void write32(uint64_t gpa, uint32_t value);
  void write8(uint64_t gpa, uint8_t value);
  [[nodiscard]] uint64_t read64(uint64_t gpa) const;
  [[nodiscard]] uint32_t read32(uint64_t gpa) const;
  [[nodiscard]] uint16_t read16(uint64_t gpa) const;
  [[nodiscard]] uint8_t read8(uint64_t gpa) const;

  // The 4 KiB page table entry of a linear address below 4 MiB (four-level or PAE tables).
  [[nodiscard]] static uint64_t pte_address(uint64_t linear) { return (linear < 0x200000 ? kPtLow : kPtData) + ((linear >> 12) & 511) * 8; }
  void set_pte(uint64_t linear, uint64_t entry) { write64(pte_address(linear), entry); }
  [[nodiscard]] uint64_t pte(uint64_t linear) const { return read64(pte_address(linear)); }
  void make_user(uint64_t linear) { set_pte(linear, pte(linear) | kUs); }

  void set_descriptor(uint16_t selector, uint64_t descriptor) { write64(kGdt + (selector & ~7u), descriptor); }
  // A gate of the mode's IDT. In long mode with an interrupt stack.
  void set_gate(unsigned vector, uint64_t offset, uint16_t selector, uint8_t type, uint8_t ist = 0);

  // Puts code at kCode (or elsewhere), INT3 after it, and RIP on it.
  void load(std::span<const std::byte> code, uint64_t address = kCode);
  void change_regs(const std::function<void(kvm_regs&)>& change, unsigned index = 0);
  void change_sregs(const std::function<void(kvm_sregs&)>& change, unsigned index = 0);
  [[nodiscard]] kvm_regs regs(unsigned index = 0);
  [[nodiscard]] kvm_sregs sregs(unsigned index = 0);
  [[nodiscard]] State state(unsigned index = 0);
  void set_msr(uint32_t index, uint64_t value);
  [[nodiscard]] uint64_t msr(uint32_t index);
  // Ring 3 at kUserCode with kUserStack (protected and long modes); its pages become user pages.
  void enter_user(std::span<const std::byte> code);

  // Runs to a report, a vector of the interrupt table, or another exit. A report's OUT is completed, so that all
  // state is consistent. Ends after 20 s with interrupted set.
  Stop run(unsigned index = 0);
  // One run(), whatever it ends with; with the same time limit.
  Stop run_once(unsigned index = 0);
  // Completes what the last exit left pending, and nothing more.
  void complete(unsigned index = 0);

  // The frame on top of the present stack, as the mode and vector have it.
  [[nodiscard]] Frame frame(int vector);

 private:
  void load_tables();
  void load_long_tables();
  void load_protected_tables();
  void set_mode(unsigned index);

  Mode mode_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Vm> vm_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
};

// Runs `body` while a thread kicks `vcpu` as soon as the time is over.
class Watchdog {
 public:
  explicit Watchdog(Vcpu& vcpu, std::chrono::seconds limit = std::chrono::seconds(20));
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::jthread thread_;
};

// The value of a Result, or a failed test and the end of the program's patience.
template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}
inline void must(Result<> result) {
  if (!result) throw std::runtime_error(result.error().message);
}

}  // namespace lodge::engine::suite
