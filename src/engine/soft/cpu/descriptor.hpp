// Descriptors of the GDT, LDT and IDT, and stacks that are not (yet) the current one: shared by segment loads, far transfers,
// event delivery and task switches. Internal to cpu/.
#pragma once

#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/state.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/mmu.hpp"

namespace lodge::engine::soft {

// Types of system descriptors (SDM vol. 3, table 3-2).
namespace system_type {
constexpr uint32_t kTss16 = 1, kLdt = 2, kBusyTss16 = 3, kCallGate16 = 4, kTaskGate = 5, kInterruptGate16 = 6, kTrapGate16 = 7, kTss32 = 9,
                   kBusyTss32 = 11, kCallGate32 = 12, kInterruptGate32 = 14, kTrapGate32 = 15;
}

// A segment, system or gate descriptor. `upper_*` are the second eight bytes that system descriptors have in long mode.
struct Descriptor {
  uint32_t low, high, upper_low, upper_high;
  uint64_t address;  // linear

  uint32_t type() const { return (high >> 8) & 15; }
  bool segment() const { return high & (1u << 12); }  // S: code or data
  uint32_t dpl() const { return (high >> 13) & 3; }
  bool present() const { return high & (1u << 15); }
  bool code() const { return segment() && (high & (1u << 11)); }
  bool data() const { return segment() && !(high & (1u << 11)); }
  bool conforming() const { return code() && (high & (1u << 10)); }
  bool writable_data() const { return data() && (high & (1u << 9)); }
  bool readable() const { return data() || (high & (1u << 9)); }
  bool code64() const { return code() && (high & (1u << 21)); }  // L
  bool big() const { return high & (1u << 22); }                 // D/B
  uint32_t base32() const { return (low >> 16) | ((high & 0xff) << 16) | (high & 0xff000000); }
  uint64_t base64() const { return base32() | static_cast<uint64_t>(upper_low) << 32; }
  uint32_t limit() const {
    const uint32_t raw = (low & 0xffff) | (high & 0xf0000);
    return high & (1u << 23) ? (raw << 12) | 0xfff : raw;
  }
  uint16_t attributes() const { return static_cast<uint16_t>((high >> 8) & 0xf0ff); }
  // Gates.
  uint16_t gate_selector() const { return static_cast<uint16_t>(low >> 16); }
  uint32_t gate_offset32() const { return (low & 0xffff) | (high & 0xffff0000); }
  uint64_t gate_offset64() const { return gate_offset32() | static_cast<uint64_t>(upper_low) << 32; }
};

inline bool null_selector(uint32_t selector) { return (selector & 0xfffc) == 0; }
inline uint32_t selector_error(uint32_t selector, uint32_t ext = 0) { return (selector & 0xfffc) | ext; }
// Linear addresses are 32 bits wide outside long mode.
inline uint64_t linear_wrap(const CpuState& c, uint64_t linear) { return long_mode(c) ? linear : linear & 0xffffffff; }
inline uint32_t iopl(const CpuState& c) { return (c.eflags_system >> 12) & 3; }
inline bool interrupt_flag(const CpuState& c) { return c.eflags_system & eflags::kIf; }

// Reads the descriptor that a selector names; false beyond the table's limit or without an LDT. The selector is not null.
bool fetch_descriptor(CpuState& c, uint32_t selector, Descriptor& descriptor);
// The same; raises `vector`(selector + ext) instead.
Descriptor need_descriptor(CpuState& c, uint32_t selector, Vector vector, uint32_t ext = 0);
// Reads the upper half of a system descriptor in long mode; raises #GP(selector) beyond the limit or with a type there
// that is not 0. Outside long mode the upper half is 0.
void fetch_upper_half(CpuState& c, uint32_t selector, Descriptor& descriptor);
// Sets the accessed bit in memory, if clear, and in `descriptor`.
void set_accessed(CpuState& c, Descriptor& descriptor);

inline SegmentRegister make_segment(uint32_t selector, const Descriptor& d) {
  return {d.base32(), d.limit(), static_cast<uint16_t>(selector), d.attributes()};
}
// SS after a transfer to an inner level in long mode, and what a null selector loads: unusable.
inline SegmentRegister null_segment(uint32_t selector, uint32_t dpl) {
  return {0, 0xffffffff, static_cast<uint16_t>(selector), static_cast<uint16_t>(dpl << attr::kDplShift)};
}
// What loading a selector makes of a segment register in real and virtual-8086 mode.
SegmentRegister real_segment(const CpuState& c, uint32_t index, uint32_t selector);
// Flat segments that SYSCALL and kin load.
inline SegmentRegister flat_segment(uint32_t selector, uint16_t attributes) {
  return {0, 0xffffffff, static_cast<uint16_t>(selector), attributes};
}

// Whether [offset, offset+size) lies outside the segment: expand-down segments included (SDM vol. 3, 5.3).
bool outside_limit(const SegmentRegister& segment, uint64_t offset, uint32_t size);
// #GP(ext) unless `offset` can be executed in `cs`.
void check_entry(CpuState& c, const SegmentRegister& cs, uint64_t offset, uint32_t ext = 0);
// Enters code: CS, CPL (with CS's RPL made equal) and next_rip. mode_changed() is the caller's, after SS.
void enter_code(CpuState& c, SegmentRegister cs, uint32_t cpl, uint64_t rip);

// A stack: the current one, or one about to be switched to.
struct Stack {
  SegmentRegister ss;
  uint64_t rsp;
  uint32_t width;       // of the stack pointer: 2, 4, 8
  bool system;          // accessed with supervisor rights, whatever the CPL is now
  uint32_t error_code;  // of #SS for an access outside
};
Stack current_stack(const CpuState& c);
// The stack for privilege level `cpl` out of the TSS (SDM vol. 3, 5.8.5, 6.12.1); in long mode with `ist` 1 to 7 that entry. #TS and #SS
// with `ext` in the error code. In long mode the SS is null.
Stack inner_stack(CpuState& c, uint32_t cpl, uint32_t ist, uint32_t ext);
// Linear address of an item at stack offset `offset`, after its checks.
uint64_t stack_linear(CpuState& c, const Stack& stack, uint64_t offset, uint32_t size);
// The item `depth` bytes above the top of the current stack.
uint64_t stack_peek(CpuState& c, const Stack& stack, uint32_t depth, uint32_t size);
// The selector in a slot of `size` bytes: Intel's processors read its two bytes only.
uint32_t stack_peek_selector(CpuState& c, const Stack& stack, uint32_t depth, uint32_t size);
// The stack pointer register after it took `value`, in the stack's width.
uint64_t merge_rsp(uint64_t old, uint64_t value, uint32_t width);

// What is to be pushed, in the order of the pushes, `size` bytes each. Nothing is written before all of it can be.
struct Frame {
  static constexpr uint32_t kMax = 40;  // a call gate's 31 parameters, SS:ESP, CS:EIP
  uint32_t size, count;
  uint64_t value[kMax];
  void push(uint64_t v) { value[count++] = v; }
};
// Writes it and returns the new stack pointer; commits nothing.
uint64_t write_frame(CpuState& c, const Stack& stack, const Frame& frame);

// The code segment that RETF and IRET return to, with all checks against the current CPL.
SegmentRegister return_code_segment(CpuState& c, uint32_t selector);
// The stack segment that goes with it.
SegmentRegister return_stack_segment(CpuState& c, uint32_t selector, const SegmentRegister& cs);
// Data segments that the outer level may not see become null (SDM vol. 3, 5.8.6).
void drop_inner_segments(CpuState& c);

// The processor's vendor as the guest's CPUID tells it: where AMD's and Intel's manuals differ.
bool vendor_is_amd(CpuState& c);
// A bit of the guest's CPUID; register_index 0-3: EAX, EBX, ECX, EDX.
bool cpuid_bit(CpuState& c, uint32_t leaf, uint32_t subleaf, uint32_t register_index, uint32_t bit);

// Task switches (cpu/task.cpp, SDM vol. 3, 7.3).
enum class TaskSwitch { Jump, Call, Return, Event };
struct TaskSwitchEvent {  // an event through a task gate
  uint32_t ext;           // EXT in error codes
  bool has_error_code;
  uint32_t error_code;
};
// `selector` names a TSS; `return_rip` is the old task's EIP. Writes next_rip. Legacy protected mode only.
void task_switch(CpuState& c, uint32_t selector, TaskSwitch reason, uint64_t return_rip, const TaskSwitchEvent* event);

}  // namespace lodge::engine::soft
