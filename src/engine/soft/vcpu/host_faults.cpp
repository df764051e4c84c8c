#include "engine/soft/vcpu/host_faults.hpp"

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <mutex>

#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

constinit thread_local CpuState* running_guest = nullptr;

namespace {

constexpr std::array kSignals{SIGFPE, SIGILL, SIGSEGV, SIGBUS};
std::array<struct sigaction, 65> previous;

// x86 exception vectors as the kernel leaves them in the signal frame.
constexpr greg_t kTrapDe = 0, kTrapUd = 6, kTrapGp = 13, kTrapMf = 16, kTrapXm = 19;

bool guest_exception(const CpuState& c, greg_t trap, PendingException& exception) {
  exception = {};
  switch (trap) {
    case kTrapDe: exception.vector = kDe; return true;
    case kTrapUd: exception.vector = kUd; return true;
    case kTrapMf: exception.vector = kMf; return true;
    case kTrapXm: exception.vector = c.cr4 & cr4::kOsxmmexcpt ? kXm : kUd; return true;
    case kTrapGp:
      exception.vector = kGp;
      exception.has_error_code = true;
      return true;
    default: return false;  // #PF: the host has no memory for the guest's page; not the guest's doing
  }
}

// The second tier keeps the guest's registers in the host's, and knows RIP by the host's PC only.
void state_from_frame(CpuState& c, const Block& block, const uint8_t* pc, const greg_t* registers) {
  static constexpr int kRegister[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                        REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  const Tier2Code& code = *block.tier2;
  const auto at = static_cast<uint32_t>(pc - c.code_index->code_begin);
  const Tier2Code::Side* side = nullptr;
  for (const Tier2Code::Side& candidate : code.side) {
    if (candidate.host > at) break;
    side = &candidate;
  }
  if (!side || side->spilled) return;
  for (int r = 0; r < 16; ++r)
    if (host_of(r) >= 0) c.gpr[r] = static_cast<uint64_t>(registers[kRegister[host_of(r)]]);
  const uint64_t page = reinterpret_cast<uint64_t>(block.host_pc) & (kPageSize - 1);
  c.rip = c.code_page + page + code.offset[side->item];
  if (!(side->flags & 2) && (side->flags & 1)) {
    const auto flags = static_cast<uint32_t>(registers[REG_EFL]);
    c.flags_low = static_cast<uint8_t>((flags & eflags::kArithmeticLow) | 2);
    c.flags_of = flags >> 11 & 1;
  }
  if (side->x87 >= 0) {
    c.x87_ip = c.code_page + page + code.offset[static_cast<size_t>(side->x87)];
    c.x87_last_opcode = code.x87_opcode[static_cast<size_t>(side->x87)];
  }
  if (c.random) {  // virtual clock: the whole block was counted
    const int64_t left = code.count - side->item;
    c.budget += left;
    c.instructions -= static_cast<uint64_t>(left);
  }
}

void pass_on(int number, siginfo_t* info, void* context) {
  const struct sigaction& old = previous[static_cast<size_t>(number)];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(number, info, context);
  } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
    // A fault cannot be ignored: returning runs the instruction again, with the default action.
    signal(number, SIG_DFL);
  } else {
    old.sa_handler(number);
  }
}

void handle(int number, siginfo_t* info, void* context) {
  auto* const frame = static_cast<ucontext_t*>(context);
  greg_t* const registers = frame->uc_mcontext.gregs;
  CpuState* const c = running_guest;
  const auto* const pc = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  if (c) {
    const CodeIndex& index = *c->code_index;
    if (pc >= index.code_begin && pc < index.code_end && guest_exception(*c, registers[REG_TRAPNO], c->exception)) {
      if (const Block* block = block_at(index, pc)) state_from_frame(*c, *block, pc, registers);
      // The copied instruction has committed nothing. The vector state in the frame is the guest's and is restored as it was.
      registers[REG_RIP] = reinterpret_cast<greg_t>(soft_unwind);
      registers[REG_RDI] = reinterpret_cast<greg_t>(c);
      registers[REG_RSI] = static_cast<greg_t>(Unwind::Exception);
      return;
    }
  }
  pass_on(number, info, context);
}

}  // namespace

void install_host_fault_handlers() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    for (const int number : kSignals) sigaction(number, &action, &previous[static_cast<size_t>(number)]);
  });
}

}  // namespace lodge::engine::soft
