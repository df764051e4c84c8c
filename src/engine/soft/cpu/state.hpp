// The state of one virtual processor, as translated code and the freestanding core see it.
//
// Translated code addresses this block through GS, so offsets are part of the contract with translate/ (it takes
// them with offsetof). The block is plain data: no constructor with effects, no pointer ownership.
//
// Between two guest instructions everything here is exact, except the vector and x87 state, which lives in the
// host's own registers while guest code runs (vcpu/) and in `vector` otherwise.
//
// Threads: owned by the vCPU's thread. The members of type std::atomic may be touched by others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/soft/cpu/counter.hpp"

struct kvm_run;

namespace lodge::engine::soft {

// Encodings of ModRM and opcodes (SDM vol. 2, table 2-2).
enum Gpr : uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };
enum SegmentIndex : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs, kSegmentCount };

// A segment register with its hidden part. `attributes` are bits 8-15 and 20-23 of the descriptor's upper dword moved
// together as in SDM vol. 3 table "VMX access rights": type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15.
// A null (unusable) data segment has P clear. The limit is in bytes (scaled by G).
struct SegmentRegister {
  uint64_t base;
  uint32_t limit;
  uint16_t selector;
  uint16_t attributes;
};
namespace attr {
constexpr uint16_t kAccessed = 1, kWritable = 2, kReadable = 2, kExpandDown = 4, kConforming = 4, kCode = 8;  // of type, S set
constexpr uint16_t kS = 1 << 4, kDplShift = 5, kPresent = 1 << 7, kL = 1 << 13, kDb = 1 << 14, kG = 1 << 15;
}  // namespace attr

struct DescriptorTable {
  uint64_t base;
  uint32_t limit;
  uint32_t reserved;
};

namespace eflags {
constexpr uint32_t kCf = 1u << 0, kPf = 1u << 2, kAf = 1u << 4, kZf = 1u << 6, kSf = 1u << 7, kTf = 1u << 8, kIf = 1u << 9, kDf = 1u << 10,
                   kOf = 1u << 11, kIopl = 3u << 12, kNt = 1u << 14, kRf = 1u << 16, kVm = 1u << 17, kAc = 1u << 18, kVif = 1u << 19,
                   kVip = 1u << 20, kId = 1u << 21;
constexpr uint32_t kArithmeticLow = kCf | kPf | kAf | kZf | kSf;
constexpr uint32_t kArithmetic = kArithmeticLow | kOf;
constexpr uint32_t kSystem = kTf | kIf | kDf | kIopl | kNt | kRf | kVm | kAc | kVif | kVip | kId;
}  // namespace eflags

namespace cr0 {
constexpr uint64_t kPe = 1, kMp = 2, kEm = 4, kTs = 8, kEt = 16, kNe = 32, kWp = 1 << 16, kAm = 1 << 18, kNw = 1 << 29, kCd = 1 << 30,
                   kPg = 1u << 31;
}
namespace cr4 {
constexpr uint64_t kVme = 1, kPvi = 2, kTsd = 4, kDe = 8, kPse = 16, kPae = 32, kMce = 64, kPge = 128, kPce = 256, kOsfxsr = 512,
                   kOsxmmexcpt = 1024, kUmip = 1 << 11, kFsgsbase = 1 << 16, kPcide = 1 << 17, kOsxsave = 1 << 18, kSmep = 1 << 20,
                   kSmap = 1 << 21;
}
namespace efer {
constexpr uint64_t kSce = 1, kLme = 1 << 8, kLma = 1 << 10, kNx = 1 << 11, kAutoIbrs = 1 << 21;
}

enum Vector : uint8_t {
  kDe = 0,
  kDb = 1,
  kNmi = 2,
  kBp = 3,
  kOf = 4,
  kBr = 5,
  kUd = 6,
  kNm = 7,
  kDf = 8,
  kTs = 10,
  kNp = 11,
  kSs_ = 12,
  kGp = 13,
  kPf = 14,
  kMf = 16,
  kAc = 17,
  kMc = 18,
  kXm = 19,
};

// What a helper that does not return hands to the vCPU loop (cpu/unwind.hpp).
enum class Unwind : uint32_t {
  None = 0,     // the guarded call returned
  Exception,    // CpuState::exception is to be delivered; rip is at the faulting instruction
  Exit,         // leave run(): CpuState::exit_reason and kvm_run are filled in; the instruction is pending (replay log)
  SlowVariant,  // run this one instruction again in its bounce-buffer form
  Restart,      // look at requests, then run this instruction again from its start
  Shutdown,     // triple fault
};

struct PendingException {
  uint8_t vector;
  bool has_error_code;
  bool is_software;  // INT n, INT3, INTO: return address is the next instruction, DPL of the gate is checked
  bool is_external;  // came from an interrupt or from delivering an event: EXT bit in error codes that delivery pushes
  uint32_t error_code;
  uint64_t cr2;  // #PF
  uint64_t dr6;  // #DB: bits to OR into DR6
};

// Interrupt shadow of STI and MOV SS (SDM vol. 3, 6.8.3): set by the instruction, cleared by the loop after the next one.
enum Shadow : uint8_t { kShadowNone = 0, kShadowSti = 1, kShadowMovSs = 2 };

// An event whose delivery has begun: kept while it exits in its middle.
enum class Delivery : uint8_t { None, Exception, Interrupt, Nmi };

struct Mmu;        // mmu/
struct Replay;     // vcpu/replay.hpp: accesses of an instruction that exits in its middle
struct CodeCache;  // translate/cache.hpp
struct CodeIndex;
struct JumpCache;
struct VcpuHooks;  // vcpu/hooks.hpp: the way from the core to the engine around it

// Model-specific registers that are plain storage for the core.
struct Msrs {
  uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
  uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
  uint64_t pat, misc_enable, mtrr_def_type, mtrr_fixed[11], mtrr_variable[16];
  uint64_t debugctl, mcg_status, mcg_cap, mcg_ctl, mc_banks[32 * 4], spec_ctrl, feature_control, xss;
  uint64_t tsc_adjust;
  // KVM's paravirtual MSRs (Documentation/virt/kvm/x86/msr.rst)
  uint64_t kvm_wall_clock, kvm_system_time, kvm_async_pf_en, kvm_async_pf_int, kvm_steal_time, kvm_eoi_en, kvm_poll_control;
  // AMD
  uint64_t hwcr, syscfg, patch_level, de_cfg, virt_spec_ctrl;
};

// CpuState::request.
enum Request : uint32_t {
  kRequestKick = 1,     // leave run() with RunResult::Interrupted
  kRequestEvent = 2,    // look at VcpuHooks::pending_events
  kRequestFlush = 4,    // empty the data TLBs (a page became code or is dirty-logged) and acknowledge
  kRequestStop = 8,     // stand still outside guest mode until the exclusive section of another vCPU ends
  kRequestForget = 16,  // with kRequestFlush: all TLBs, and all that is known by linear address (memory slots changed)
};

// Where translated code finds the translation for a linear address. The index is the address's low 16 bits, in user mode XORed with a
// number of the address space, so that programs do not take each other's places; the translation that is jumped to compares the tag.
// It stands at a fixed distance from CpuState.
struct JumpTable {
  static constexpr uint32_t kEntries = 1 << 16;
  uint64_t code[kEntries];
  // Linear address ^ CpuState::jump_salt. The low bits of index ^ tag are what is special to the context: the salt ^ the number that its
  // indices are XORed with.
  uint64_t tag[kEntries];
};
constexpr uint32_t kJumpTableOffset = 16384;  // from the beginning of CpuState
// Where a jump through the table came from, should its target not be canonical: the instruction's offset in its page, and what it had
// popped (or, negative, pushed), to be taken back.
constexpr uint32_t kJumpComplete = ~0u;  // not to be taken back
constexpr uint32_t jump_from(uint32_t offset, int32_t popped) { return offset | static_cast<uint32_t>(popped) << 12; }
constexpr uint32_t kAddressSpaces = 16;  // that have a TLB of their own (mmu/tlb.hpp)
constexpr uint32_t kJumpContexts = 4, kGroupSlots = 8;
struct JumpContext {
  uint32_t key, number;  // number 0: none
};

struct alignas(64) CpuState {
  uint64_t gpr[16];
  uint64_t host_rsp;  // innermost guarded call (cpu/unwind.hpp)
  uint64_t rip;       // of the instruction about to run or running
  uint64_t next_rip;  // set before a system helper is called: the following instruction; a helper that branches overwrites it
  uint8_t flags_of;   // OF: 0 or 1
  uint8_t flags_low;  // SF ZF AF PF CF in LAHF's layout, bit 1 always set
  uint16_t reserved0;
  uint32_t eflags_system;  // the others (eflags::kSystem)

  SegmentRegister seg[kSegmentCount];
  SegmentRegister ldtr, tr;
  DescriptorTable gdtr, idtr;

  uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
  uint64_t dr[8];     // 0-3, 6 and 7
  uint64_t pdpte[4];  // PAE paging: loaded with CR3 (SDM vol. 3, 4.4.1)

  // What makes the loop look before the next instruction: one word for translated code (kAttention).
  alignas(4) uint8_t shadow;  // Shadow
  bool halted;
  bool events_waiting;    // an event is pending that IF, a shadow or NMI blocking holds back: look again when that may have changed
  bool guest_debug_step;  // KVM_GUESTDBG_SINGLESTEP: leave with KVM_EXIT_DEBUG after one instruction

  uint8_t cpl;
  bool nmi_blocked;  // from an NMI's delivery to IRET
  bool smm;
  bool slow_variant;    // the running instruction is its bounce-buffer form
  bool step_cancelled;  // the instruction cleared TF by entering a handler: no single-step trap follows it (debug_trap_pending)
  bool rf_loaded;       // IRET loaded RF for the next instruction: its own completion does not clear it

  PendingException exception;
  // The event that is being delivered: its delivery may have exited in its middle (vcpu/loop.cpp).
  PendingException delivering;
  Delivery delivery;
  uint32_t exit_reason;  // KVM_EXIT_*
  uint32_t key;          // translation key: all state that a translation depends on (cpu/mode.hpp), kept by mode_changed()
  uint32_t view;         // which TLB array data accesses use (mmu/), kept by mode_changed()
  uint32_t id;           // vCPU id = APIC id

  Msrs msrs;

  // The translation was left before its end, at a request: not all of its instructions were run.
  uint32_t left_early;

  // Entries of the jump table count as long as their tag ^ both of these, read as one word, is the address jumped to (kJumpCheck).
  alignas(8) uint32_t jump_salt;  // 16 bits: which tags count now; kept by jump_context_changed()
  // Event requests from other threads (vcpu/); nonzero makes the loop look before the next block.
  std::atomic<uint32_t> request;

  // Breakpoints (DR6.B0-B3) that data and port accesses of the running instruction hit: cpu/debug.hpp.
  uint32_t debug_hits;
  uint32_t reserved4;

  uint64_t instructions;  // guest instructions completed
  int64_t budget;         // virtual clock: instructions until the next timed event
  uint64_t random;        // virtual clock: state of what RDRAND and RDSEED give, never 0; 0 with real time: the host's

  Mmu* mmu;
  Replay* replay;
  VcpuHooks* hooks;
  struct kvm_run* run;    // the page shared with the caller of run()
  void* vcpu;             // the engine's Vcpu around this state
  JumpCache* jump_cache;  // translate/: translations found lately
  CodeCache* code_cache;  // the VM's
  CodeIndex* code_index;  // what look-ups read of it

  CpuState* self;  // translated code loads the first argument of helpers from here

  // The access of the running slow-variant instruction (translate/helpers.cpp).
  uint64_t slow_linear;
  uint32_t slow_size;
  bool slow_direct;       // the operand is guest RAM itself, not the bounce buffer
  bool slow_exclusive;    // other vCPUs stand still until the access is committed
  uint8_t* slow_host[2];  // of an exclusive access: RAM on both sides of the page boundary
  uint64_t block_rip;     // where the running translation began

  // x87's last instruction and operand: the host's own would show host addresses.
  uint64_t x87_ip, x87_dp;
  uint16_t x87_opcode;
  // Opcode and operand of the last x87 instruction, which become those above when the processor's rules let them (x87_settle).
  uint16_t x87_last_opcode;
  uint16_t x87_rules;
  uint16_t intel_rules;  // 1: what the manuals leave open goes as on Intel's processors, not as on AMD's (the host's vendor)
  uint64_t x87_last_dp, x87_last_dp_ip;

  // --- the block translator's (translate/tier2.hpp)
  uint64_t tlb;        // address of the TLB array of `view`, kept by mode_changed() and mmu/
  uint64_t tlb_views;  // address of the arrays of all views of the current address space, and the bytes of each
  uint64_t tlb_view_size;
  uint32_t address_space;  // the index of its TLB
  uint64_t code_page;      // linear address of the page that the running translation lies in
  uint32_t jump_index;     // 16 bits, XORed with an address's to make an index
  // The supervisor's code has been found in global pages only: its contexts are the same in all address spaces, and outlive a load of CR3.
  bool global_code;
  JumpTable* jump_table;
  uint64_t jump_miss;    // what an empty entry of the table holds
  uint32_t jump_from;    // jump_from() of the last jump through the table
  uint32_t jump_missed;  // it found nothing in the table: rip is its target
  // Numbers given since the address space's last flush, by translation key; which was given last; how many ever. The last row is of the
  // supervisor's global code.
  JumpContext jump_context[kAddressSpaces + 1][kJumpContexts];
  uint32_t jump_context_next[kAddressSpaces + 1];
  uint32_t jump_numbers;
  uint64_t chain;               // the edge by which translated code came to its end, to be linked; 0: none
  uint64_t scratch[4];          // of translated code
  uint64_t group[kGroupSlots];  // addends that a look-up found for later accesses of the same block

  uint64_t counter[kCounters];
  Phase phase;

  // Scratch of translated code and helpers: operands spilled for a helper, and the bounce buffer, whose users keep the
  // guest address's alignment modulo 64.
  alignas(64) uint8_t operand[4][64];
  alignas(64) uint8_t bounce[64 + 4096];
};

inline void count(CpuState& c, Counter what) { ++c.counter[static_cast<uint32_t>(what)]; }

// EFLAGS as PUSHF sees it, and its parts from such a value.
inline uint32_t get_eflags(const CpuState& c) {
  return (c.flags_low & eflags::kArithmeticLow) | (static_cast<uint32_t>(c.flags_of) << 11) | c.eflags_system | 2;
}
inline void set_eflags(CpuState& c, uint32_t value) {
  c.flags_low = static_cast<uint8_t>((value & eflags::kArithmeticLow) | 2);
  c.flags_of = (value >> 11) & 1;
  c.eflags_system = value & eflags::kSystem;
}

// When the opcode and the operand's address are taken (SDM vol. 1, 8.1.8 and 8.1.9): only of an instruction with an unmasked exception, or
// always. The host's processor decides.
enum X87Rules : uint16_t { kX87OpcodeOfExceptions = 1, kX87OperandOfExceptions = 2 };
// `fsw`: the status word, whose ES says that the last instruction had an unmasked exception. Before the pointers are read, and before that
// bit is cleared.
inline void x87_settle(CpuState& c, uint16_t fsw) {
  const bool exception = fsw & 0x80;
  if (exception || !(c.x87_rules & kX87OpcodeOfExceptions)) c.x87_opcode = c.x87_last_opcode;
  if (!(c.x87_rules & kX87OperandOfExceptions) || (exception && c.x87_last_dp_ip == c.x87_ip)) c.x87_dp = c.x87_last_dp;
}
// After the pointers have been loaded.
inline void x87_loaded(CpuState& c) {
  c.x87_last_opcode = c.x87_opcode;
  c.x87_last_dp = c.x87_dp;
  c.x87_last_dp_ip = c.x87_ip;
}

inline bool protected_mode(const CpuState& c) { return c.cr0 & cr0::kPe; }
inline bool v86_mode(const CpuState& c) { return c.eflags_system & eflags::kVm; }
inline bool real_or_v86(const CpuState& c) { return !protected_mode(c) || v86_mode(c); }
inline bool long_mode(const CpuState& c) { return c.efer & efer::kLma; }
inline bool code64(const CpuState& c) { return long_mode(c) && (c.seg[kCs].attributes & attr::kL); }
// Where the next instruction lies.
inline uint64_t code_linear(const CpuState& c) { return code64(c) ? c.rip : (c.seg[kCs].base + c.rip) & 0xffffffff; }

}  // namespace lodge::engine::soft
