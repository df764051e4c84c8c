#include "engine/soft/vcpu/host_faults.hpp"

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <mutex>

#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/translate/cache.hpp"

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
