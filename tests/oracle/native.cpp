#include "native.hpp"

#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstring>

namespace lodge::oracle {
namespace {

struct EntryContext {
  uint64_t gpr[16];
  const Vectors* vectors;
  uint16_t ds, es, fs, gs;
  uint64_t fs_base, gs_base;
  uint32_t set_bases, padding;
  uint64_t* iret_frame;
};
static_assert(offsetof(EntryContext, vectors) == 0x80 && offsetof(EntryContext, ds) == 0x88 && offsetof(EntryContext, fs_base) == 0x90 &&
              offsetof(EntryContext, set_bases) == 0xa0 && offsetof(EntryContext, iret_frame) == 0xa8);

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM};
constexpr size_t kSignalStackSize = 1 << 16;
constexpr suseconds_t kHangMicroseconds = 500'000;

Outcome* current_outcome;

// Signals and their stack belong to the engine's own process as well: taken for one run, given back after it.
class SignalScope {
 public:
  explicit SignalScope(uint8_t* stack);
  ~SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

 private:
  struct sigaction saved_[std::size(kSignals)] = {};
  stack_t saved_stack_ = {};
};

}  // namespace

extern "C" {
extern uint32_t oracle_active;
extern uint16_t oracle_trap_segments[4];
extern uint64_t oracle_trap_fs_base, oracle_trap_gs_base;
void oracle_enter(EntryContext* context);
void oracle_signal(int signal, siginfo_t* info, void* context);

// A signal outside of a run: the harness itself failed. The default action follows when the handler returns.
__attribute__((used)) void oracle_foreign_signal(int signal) {
  if (signal != SIGALRM) ::signal(signal, SIG_DFL);
}

__attribute__((used)) void oracle_on_trap(int signal, siginfo_t*, ucontext_t* context) {
  // Linux's order of gregs against the encoding's.
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  const greg_t* g = context->uc_mcontext.gregs;
  Outcome& out = *current_outcome;
  for (int i = 0; i < 16; ++i) out.state.gpr[size_t(i)] = uint64_t(g[kOrder[i]]);
  out.state.rip = uint64_t(g[REG_RIP]);
  out.state.rflags = uint64_t(g[REG_EFL]);
  out.state.cs = uint16_t(g[REG_CSGSFS]);
  out.state.ss = uint16_t(uint64_t(g[REG_CSGSFS]) >> 48);
  out.state.ds = oracle_trap_segments[0];
  out.state.es = oracle_trap_segments[1];
  out.state.fs = oracle_trap_segments[2];
  out.state.gs = oracle_trap_segments[3];
  out.state.fs_base = oracle_trap_fs_base;
  out.state.gs_base = oracle_trap_gs_base;
  std::memcpy(&out.state.vectors, context->uc_mcontext.fpregs, sizeof(Vectors));
  out.vector = signal == SIGALRM ? kHang : uint8_t(g[REG_TRAPNO]);
  out.error = has_error_code(out.vector) ? uint32_t(g[REG_ERR]) : 0;
  out.cr2 = out.vector == 14 ? uint64_t(g[REG_CR2]) : 0;
}
}

namespace {

SignalScope::SignalScope(uint8_t* stack) {
  struct sigaction action = {};
  action.sa_sigaction = oracle_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &action, &saved_[i]);
  const stack_t alternate = {.ss_sp = stack, .ss_flags = 0, .ss_size = kSignalStackSize};
  ::sigaltstack(&alternate, &saved_stack_);
}

SignalScope::~SignalScope() {
  for (size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &saved_[i], nullptr);
  ::sigaltstack(&saved_stack_, nullptr);
}

void set_alarm(suseconds_t microseconds) {
  const itimerval timer = {{0, 0}, {0, microseconds}};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

uint64_t* iret_frame() { return reinterpret_cast<uint64_t*>(kEspHigh16 + 0x800); }

}  // namespace

Result<std::unique_ptr<Native>> Native::create() {
  std::unique_ptr<Native> native(new Native);
  TRY(native->map_areas());
  TRY(native->load_ldt());
  native->signal_stack_ = std::make_unique<uint8_t[]>(kSignalStackSize);
  std::memcpy(native->image_, pattern().data(), kImageSize);
  return native;
}

Native::~Native() {
  if (image_) ::munmap(image_, kImageSize);
  if (fd_ >= 0) ::close(fd_);
}

Result<> Native::map_areas() {
  fd_ = ::memfd_create("oracle", MFD_CLOEXEC);
  if (fd_ < 0) return os_fail("memfd_create");
  if (::ftruncate(fd_, kImageSize) < 0) return os_fail("ftruncate");
  void* image = ::mmap(nullptr, kImageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, 0);
  if (image == MAP_FAILED) return os_fail("mmap");
  image_ = static_cast<uint8_t*>(image);
  for (const Area& area : kAreas) {
    // Populated, so that a fault's error code says "protection" and not "not present".
    const int protection = PROT_READ | (area.writable ? PROT_WRITE : 0) | (area.executable ? PROT_EXEC : 0);
    void* at = reinterpret_cast<void*>(area.linear);
    void* got = ::mmap(at, area.pages * kPage, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd_, area.offset);
    if (got != at) return os_fail(fmt::format("mmap of test pages at {:#x}", area.linear));
  }
  void* frame = reinterpret_cast<void*>(kEspHigh16);
  if (::mmap(frame, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0) != frame) {
    return os_fail("mmap of the IRET frame");
  }
  return {};
}

Result<> Native::load_ldt() {
  for (size_t i = 0; i < kLdt.size(); ++i) {
    const LdtEntry& e = kLdt[i];
    user_desc d = {};
    d.entry_number = uint32_t(i);
    d.base_addr = e.base;
    d.limit = e.limit;
    d.seg_32bit = e.is_32bit;
    d.contents = e.contents;
    d.read_exec_only = e.read_exec_only;
    d.limit_in_pages = e.limit_in_pages;
    d.seg_not_present = e.not_present;
    if (::syscall(SYS_modify_ldt, 0x11, &d, sizeof d) != 0) return os_fail("modify_ldt (16-bit and 32-bit test segments)");
  }
  return {};
}

void Native::run(const Case& test, Outcome& out) {
  for (const Patch& patch : test.patches) {
    for (size_t i = 0; i < patch.length; ++i) {
      if (const int64_t at = image_offset(patch.linear + i); at >= 0) image_[at] = patch.data[i];
    }
  }
  const State& s = test.initial;
  EntryContext context = {};
  std::memcpy(context.gpr, s.gpr.data(), sizeof context.gpr);
  context.vectors = &s.vectors;
  context.ds = s.ds;
  context.es = s.es;
  context.fs = s.fs;
  context.gs = s.gs;
  context.fs_base = s.fs_base;
  context.gs_base = s.gs_base;
  context.set_bases = test.mode == Mode::Code64;
  context.iret_frame = iret_frame();
  context.iret_frame[0] = s.rip;
  context.iret_frame[1] = s.cs;
  context.iret_frame[2] = s.rflags;
  context.iret_frame[3] = s.gpr[kRsp];
  context.iret_frame[4] = s.ss;
  current_outcome = &out;
  {
    const SignalScope signals(signal_stack_.get());
    set_alarm(kHangMicroseconds);
    oracle_enter(&context);
    set_alarm(0);
  }
  normalise(out.state.vectors);
  std::memcpy(out.memory.data(), image_, kImageSize);
  std::memcpy(image_, pattern().data(), kImageSize);
}

}  // namespace lodge::oracle
