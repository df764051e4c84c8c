#include "engine/select/proof.hpp"

#include <sys/mman.h>

#include <chrono>
#include <cstring>

#include "engine/select/proof_payload.h"
#include "engine/select/select.hpp"

extern "C" {
extern const std::byte lodge_proof_begin[];
extern const std::byte lodge_proof_end[];
extern const std::byte lodge_proof_on_page_fault[];
extern const std::byte lodge_proof_on_invalid_opcode[];
extern const std::byte lodge_proof_on_user[];
extern const std::byte lodge_proof_on_interrupt[];
extern const std::byte lodge_proof_on_unexpected[];
extern const std::byte lodge_proof_after_syscall[];
}

namespace lodge::engine::select {

namespace {

constexpr uint64_t kPresent = 1;
constexpr uint64_t kWritable = 2;
constexpr uint64_t kUser = 4;
constexpr uint64_t kUncached = 0x10;
constexpr uint64_t kAccessed = 0x20;
constexpr uint64_t kLarge = 0x80;

constexpr uint64_t kCr0Pe = 1;
constexpr uint64_t kCr0Et = 0x10;
constexpr uint64_t kCr0Pg = 0x80000000;
constexpr uint64_t kCr4Pae = 0x20;
constexpr uint64_t kEferLme = 0x100;
constexpr uint64_t kEferLma = 0x400;

constexpr uint8_t kInterruptGate = 0x8e;
constexpr uint8_t kUserInterruptGate = 0xee;

void put(std::span<std::byte> memory, uint64_t address, uint64_t value) { std::memcpy(&memory[address], &value, sizeof value); }
uint64_t peek(std::span<const std::byte> memory, uint64_t address) {
  uint64_t value;
  std::memcpy(&value, &memory[address], sizeof value);
  return value;
}

uint64_t address_of(const std::byte* label) { return PROOF_CODE + static_cast<uint64_t>(label - lodge_proof_begin); }

void load_page_tables(std::span<std::byte> memory) {
  const uint64_t table = kPresent | kWritable | kUser;
  put(memory, PROOF_PML4, PROOF_PDPT | table);
  put(memory, PROOF_PDPT, PROOF_PD_LOW | table);
  put(memory, PROOF_PDPT + 3 * 8, PROOF_PD_HIGH | table);
  put(memory, PROOF_PD_LOW, kPresent | kWritable | kUser | kLarge);
  put(memory, PROOF_PD_LOW + (PROOF_WINDOW >> 21) * 8, PROOF_PT | table);
  put(memory, PROOF_PT, PROOF_PAGE_A | kPresent | kWritable);
  constexpr uint64_t kApic = 0xfee00000;
  put(memory, PROOF_PD_HIGH + ((kApic >> 21) & 511) * 8, kApic | kPresent | kWritable | kUncached | kLarge);
}

void load_gdt(std::span<std::byte> memory) {
  put(memory, PROOF_GDT + PROOF_KERNEL_CS, 0x00209b0000000000);
  put(memory, PROOF_GDT + PROOF_KERNEL_SS, 0x00cf93000000ffff);
  put(memory, PROOF_GDT + PROOF_USER_BASE + 8, 0x00cff3000000ffff);
  put(memory, PROOF_GDT + PROOF_USER_BASE + 16, 0x0020fb0000000000);
  constexpr uint64_t kTssLimit = 0x67;
  put(memory, PROOF_GDT + PROOF_TR, kTssLimit | uint64_t{PROOF_TSS} << 16 | uint64_t{0x89} << 40);
  put(memory, PROOF_TSS + 4, PROOF_RSP0);
  put(memory, PROOF_TSS + 0x24, PROOF_IST1);
}

void set_gate(std::span<std::byte> memory, unsigned vector, const std::byte* handler, uint8_t type, unsigned ist) {
  const uint64_t offset = address_of(handler);
  put(memory, PROOF_IDT + vector * 16,
      (offset & 0xffff) | uint64_t{PROOF_KERNEL_CS} << 16 | uint64_t{ist} << 32 | uint64_t{type} << 40 | (offset >> 16) << 48);
}

void load_idt(std::span<std::byte> memory) {
  for (unsigned vector = 0; vector < 32; ++vector) set_gate(memory, vector, lodge_proof_on_unexpected, kInterruptGate, 0);
  set_gate(memory, 6, lodge_proof_on_invalid_opcode, kInterruptGate, 0);
  set_gate(memory, 14, lodge_proof_on_page_fault, kInterruptGate, 1);
  set_gate(memory, PROOF_VECTOR_INTERRUPT, lodge_proof_on_interrupt, kInterruptGate, 0);
  set_gate(memory, PROOF_VECTOR_USER, lodge_proof_on_user, kUserInterruptGate, 0);
}

struct Expected {
  uint64_t address;
  uint64_t value;
  const char* what;
};

}  // namespace

void load_proof(std::span<std::byte> memory) {
  load_page_tables(memory);
  load_gdt(memory);
  load_idt(memory);
  put(memory, PROOF_PAGE_A, PROOF_VALUE_A);
  put(memory, PROOF_PAGE_B, PROOF_VALUE_B);
  std::memcpy(&memory[PROOF_CODE], lodge_proof_begin, static_cast<size_t>(lodge_proof_end - lodge_proof_begin));
}

void set_proof_state(kvm_sregs& sregs, kvm_regs& regs) {
  sregs.cr0 = kCr0Pe | kCr0Et | kCr0Pg;
  sregs.cr3 = PROOF_PML4;
  sregs.cr4 = kCr4Pae;
  sregs.efer = kEferLme | kEferLma;

  kvm_segment code = {};
  code.limit = 0xffffffff;
  code.selector = PROOF_KERNEL_CS;
  code.type = 11;  // execute, read, accessed
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  sregs.cs = code;
  kvm_segment data = code;
  data.selector = PROOF_KERNEL_SS;
  data.type = 3;  // read, write, accessed
  data.l = 0;
  data.db = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  kvm_segment task = {};
  task.type = 11;  // busy 64-bit TSS
  task.present = 1;
  task.limit = 0x67;
  sregs.tr = task;
  kvm_segment ldt = {};
  ldt.unusable = 1;
  sregs.ldt = ldt;

  regs = {};
  regs.rip = PROOF_CODE;
  regs.rsp = PROOF_STACK_TOP;
  regs.rflags = 2;
}

std::string check_proof(std::span<const std::byte> memory) {
  const Expected expected[] = {
      {PROOF_RESULT_STEP, PROOF_STEP_DONE, "the last step"},
      {PROOF_RESULT_WINDOW, PROOF_VALUE_A, "a read through the page tables"},
      {PROOF_RESULT_WINDOW + 8, PROOF_VALUE_B, "a read after INVLPG"},
      {PROOF_RESULT_WINDOW + 16, PROOF_VALUE_A, "the read that faulted"},
      {PROOF_RESULT_CR2, PROOF_WINDOW_HOLE, "CR2 after a page fault"},
      {PROOF_RESULT_PF_ERROR, 0, "the page fault's error code"},
      {PROOF_RESULT_UD_COUNT, 1, "the number of invalid opcodes"},
      {PROOF_RESULT_USER_CS, PROOF_USER_CS, "CS in ring 3"},
      {PROOF_RESULT_SYSCALL_RIP, address_of(lodge_proof_after_syscall), "RCX after SYSCALL"},
      {PROOF_RESULT_INTERRUPTS, 1, "the number of interrupts"},
      {PROOF_PT, PROOF_PAGE_B | kPresent | kWritable | kAccessed, "the page table entry with its accessed bit"},
  };
  for (const Expected& e : expected)
    if (const uint64_t is = peek(memory, e.address); is != e.value) return fmt::format("{} is {:#x}, not {:#x}", e.what, is, e.value);
  return {};
}

const char* proof_step(std::span<const std::byte> memory) {
  switch (peek(memory, PROOF_RESULT_STEP)) {
    case 0: return "its first instruction";
    case PROOF_STEP_CONTROL_REGISTERS: return "control registers";
    case PROOF_STEP_MSRS: return "model-specific registers";
    case PROOF_STEP_DESCRIPTOR_TABLES: return "descriptor tables";
    case PROOF_STEP_PAGING: return "paging";
    case PROOF_STEP_PAGE_FAULT: return "a page fault";
    case PROOF_STEP_INVALID_OPCODE: return "an invalid opcode";
    case PROOF_STEP_USER_MODE: return "user mode";
    case PROOF_STEP_SYSCALL: return "SYSCALL";
    case PROOF_STEP_INTERRUPT: return "an interrupt of the local APIC";
    default: return "its end";
  }
}

namespace {

// Guest memory of its own: a private mapping, gone with the scope.
class ProofMemory {
 public:
  ProofMemory() : base_(mmap(nullptr, PROOF_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {}
  ~ProofMemory() {
    if (base_ != MAP_FAILED) munmap(base_, PROOF_MEMORY_SIZE);
  }
  ProofMemory(const ProofMemory&) = delete;
  ProofMemory& operator=(const ProofMemory&) = delete;
  [[nodiscard]] bool ok() const { return base_ != MAP_FAILED; }
  [[nodiscard]] std::span<std::byte> bytes() const { return {static_cast<std::byte*>(base_), PROOF_MEMORY_SIZE}; }

 private:
  void* base_;
};

Result<> run_proof(System& system, std::span<std::byte> memory) {
  load_proof(memory);
  const auto vm = TRY(system.create_vm());
  TRY(vm->create_irqchip());
  kvm_userspace_memory_region region = {};
  region.memory_size = PROOF_MEMORY_SIZE;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory.data());
  TRY(vm->set_user_memory_region(region));
  const auto vcpu = TRY(vm->create_vcpu(0));
  const auto cpuid = TRY(system.get_supported_cpuid());
  TRY(vcpu->set_cpuid2(cpuid));
  kvm_sregs sregs = TRY(vcpu->get_sregs());
  kvm_regs regs = {};
  set_proof_state(sregs, regs);
  TRY(vcpu->set_sregs(sregs));
  TRY(vcpu->set_regs(regs));
  while (TRY(vcpu->run()) == RunResult::Interrupted) continue;
  const kvm_run& run = vcpu->shared();
  if (run.exit_reason != KVM_EXIT_IO || run.io.port != PROOF_PORT)
    return fail(ErrorKind::Unsupported, "the guest stopped with exit reason {} in the step on {}", run.exit_reason, proof_step(memory));
  if (const std::string wrong = check_proof(memory); !wrong.empty())
    return fail(ErrorKind::Unsupported, "the guest failed in the step on {}: {}", proof_step(memory), wrong);
  return {};
}

}  // namespace

Proof prove_system(System& system) {
  const auto start = std::chrono::steady_clock::now();
  Proof proof;
  const ProofMemory memory;
  if (!memory.ok()) {
    proof.reason = os_error("memory for the test guest").message;
    return proof;
  }
  const auto result = run_proof(system, memory.bytes());
  proof.works = result.has_value();
  proof.reason = result ? "a 64-bit guest ran as it should" : result.error().message;
  proof.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return proof;
}

}  // namespace lodge::engine::select
