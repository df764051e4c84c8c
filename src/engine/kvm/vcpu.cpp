#include "engine/kvm/vcpu.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "engine/kvm/abi.hpp"
#include "engine/kvm/device.hpp"

namespace lodge::engine::kvm {

namespace {

// The kick.
//
// kick() stores kicked_ and then looks for a thread in run(); run() publishes its thread and then looks at kicked_. Both
// are sequentially consistent, so at least one sees the other:
//  - run() sees the kick: it sets immediate_exit, and KVM_RUN returns EINTR after completing a pending instruction.
//  - kick() sees the thread: it sends the signal. If that arrives before the kernel reads immediate_exit, the handler
//    has set it; if later, the kernel finds a signal pending, which it checks with interrupts disabled before each entry
//    of the guest and on each way out of a halt, and the signal's own IPI takes the vCPU out of guest mode. Either way
//    KVM_RUN returns EINTR.
// kicked_ is cleared only where run() is about to return Interrupted, so an Exit that comes first leaves the kick to
// the next run(). A signal that arrives when its run() is over finds no current vCPU and does nothing, or makes a later
// run() return Interrupted once too often, which a caller must stand anyway.
int kick_signal() { return SIGRTMIN + 6; }

struct Current {
  kvm_run* run;  // of the run() in progress on this thread
  bool forced;   // immediate_exit was set by the handler or by run(), not by the caller
};
thread_local volatile Current current = {nullptr, false};

void on_kick(int) {
  if (!current.run) return;
  current.forced = true;
  __atomic_store_n(&current.run->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
}

// Once a process: the handler. SA_RESTART, so that a late kick disturbs no other system call; KVM_RUN is not restarted.
bool install_handler() {
  struct sigaction action = {};
  action.sa_handler = on_kick;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  return sigaction(kick_signal(), &action, nullptr) == 0;
}

// Once a thread: threads often start with all signals blocked.
bool unblock_kick() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kick_signal());
  return pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0;
}

template <typename T>
Result<T> get(const Fd& fd, unsigned long request, const char* name) {
  T value = {};
  TRY(call(fd.get(), request, name, &value));
  return value;
}

template <typename T>
Result<> set(const Fd& fd, unsigned long request, const char* name, const T& value) {
  TRY(call(fd.get(), request, name, &value));
  return {};
}

// kvm_msrs and kvm_cpuid2 end in an array of any length.
template <typename Header, typename Entry>
class WithEntries {
 public:
  explicit WithEntries(std::span<const Entry> entries) : bytes_((sizeof(Header) + entries.size_bytes() + 7) / 8) {
    if (!entries.empty()) std::memcpy(this->entries(), entries.data(), entries.size_bytes());
  }
  [[nodiscard]] Header* header() { return reinterpret_cast<Header*>(bytes_.data()); }
  [[nodiscard]] Entry* entries() { return reinterpret_cast<Entry*>(header() + 1); }

 private:
  std::vector<uint64_t> bytes_;
};

}  // namespace

Result<std::unique_ptr<Vcpu>> KvmVcpu::create(int vm_fd, uint32_t id, size_t run_size) {
  static const bool handler_installed = install_handler();
  if (!handler_installed) return os_fail("installing the handler of the kick signal");
  Fd fd(TRY(call(vm_fd, KVM_CREATE_VCPU, "KVM_CREATE_VCPU", static_cast<unsigned long>(id))));
  void* run = mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (run == MAP_FAILED) return os_fail("mapping kvm_run");
  return std::unique_ptr<Vcpu>(new KvmVcpu(std::move(fd), static_cast<kvm_run*>(run), run_size));
}

KvmVcpu::~KvmVcpu() { munmap(run_, run_size_); }

Result<RunResult> KvmVcpu::run() {
  static thread_local const bool unblocked = unblock_kick();
  if (!unblocked) return os_fail("unblocking the kick signal");

  const uint8_t asked = run_->immediate_exit;
  current.forced = false;
  current.run = run_;
  thread_.store(gettid());
  if (kicked_.load()) {
    current.forced = true;
    __atomic_store_n(&run_->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
  }
  const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int error = errno;
  thread_.store(0);
  current.run = nullptr;
  if (current.forced) run_->immediate_exit = asked;

  if (result >= 0) return RunResult::Exit;
  // EAGAIN: an application processor was woken from wait-for-SIPI, or waits on.
  if (error == EINTR || error == EAGAIN) {
    kicked_.store(false);
    return RunResult::Interrupted;
  }
  if (error == EFAULT) {
    return std::unexpected(
        os_error("KVM_RUN: the guest touched memory that the host cannot give (is the host out of memory or huge pages?)", error));
  }
  return os_fail("KVM_RUN", error);
}

void KvmVcpu::kick() {
  kicked_.store(true);
  // The thread may have left run(), or ended, since: then the signal does nothing (see above).
  if (const pid_t thread = thread_.load()) syscall(SYS_tgkill, getpid(), thread, kick_signal());
}

Result<kvm_regs> KvmVcpu::get_regs() { return get<kvm_regs>(fd_, KVM_GET_REGS, "KVM_GET_REGS"); }
Result<> KvmVcpu::set_regs(const kvm_regs& regs) { return set(fd_, KVM_SET_REGS, "KVM_SET_REGS", regs); }
Result<kvm_sregs> KvmVcpu::get_sregs() { return get<kvm_sregs>(fd_, KVM_GET_SREGS, "KVM_GET_SREGS"); }
Result<> KvmVcpu::set_sregs(const kvm_sregs& sregs) { return set(fd_, KVM_SET_SREGS, "KVM_SET_SREGS", sregs); }
Result<Xsave> KvmVcpu::get_xsave() { return get<Xsave>(fd_, kGetXsave, "KVM_GET_XSAVE"); }
Result<> KvmVcpu::set_xsave(const Xsave& xsave) { return set(fd_, kSetXsave, "KVM_SET_XSAVE", xsave); }
Result<kvm_xcrs> KvmVcpu::get_xcrs() { return get<kvm_xcrs>(fd_, KVM_GET_XCRS, "KVM_GET_XCRS"); }
Result<> KvmVcpu::set_xcrs(const kvm_xcrs& xcrs) { return set(fd_, KVM_SET_XCRS, "KVM_SET_XCRS", xcrs); }
Result<kvm_debugregs> KvmVcpu::get_debugregs() { return get<kvm_debugregs>(fd_, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS"); }
Result<> KvmVcpu::set_debugregs(const kvm_debugregs& debugregs) { return set(fd_, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", debugregs); }
Result<kvm_vcpu_events> KvmVcpu::get_vcpu_events() { return get<kvm_vcpu_events>(fd_, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS"); }
Result<> KvmVcpu::set_vcpu_events(const kvm_vcpu_events& events) { return set(fd_, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", events); }
Result<kvm_mp_state> KvmVcpu::get_mp_state() { return get<kvm_mp_state>(fd_, KVM_GET_MP_STATE, "KVM_GET_MP_STATE"); }
Result<> KvmVcpu::set_mp_state(const kvm_mp_state& state) { return set(fd_, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", state); }
Result<kvm_lapic_state> KvmVcpu::get_lapic() { return get<kvm_lapic_state>(fd_, KVM_GET_LAPIC, "KVM_GET_LAPIC"); }
Result<> KvmVcpu::set_lapic(const kvm_lapic_state& lapic) { return set(fd_, KVM_SET_LAPIC, "KVM_SET_LAPIC", lapic); }

Result<size_t> KvmVcpu::get_msrs(std::span<kvm_msr_entry> entries) {
  WithEntries<MsrsHeader, kvm_msr_entry> list(entries);
  list.header()->nmsrs = static_cast<uint32_t>(entries.size());
  const auto worked = static_cast<size_t>(TRY(call(fd_.get(), kGetMsrs, "KVM_GET_MSRS", list.header())));
  std::memcpy(entries.data(), list.entries(), worked * sizeof(kvm_msr_entry));
  return worked;
}

Result<size_t> KvmVcpu::set_msrs(std::span<const kvm_msr_entry> entries) {
  WithEntries<MsrsHeader, kvm_msr_entry> list(entries);
  list.header()->nmsrs = static_cast<uint32_t>(entries.size());
  return static_cast<size_t>(TRY(call(fd_.get(), kSetMsrs, "KVM_SET_MSRS", list.header())));
}

Result<> KvmVcpu::set_cpuid2(std::span<const kvm_cpuid_entry2> entries) {
  WithEntries<Cpuid2Header, kvm_cpuid_entry2> list(entries);
  list.header()->nent = static_cast<uint32_t>(entries.size());
  TRY(call(fd_.get(), kSetCpuid2, "KVM_SET_CPUID2", list.header()));
  return {};
}

Result<> KvmVcpu::set_guest_debug(const kvm_guest_debug& debug) { return set(fd_, KVM_SET_GUEST_DEBUG, "KVM_SET_GUEST_DEBUG", debug); }

Result<> KvmVcpu::nmi() {
  TRY(call(fd_.get(), KVM_NMI, "KVM_NMI", 0UL));
  return {};
}

Result<kvm_translation> KvmVcpu::translate(uint64_t linear) {
  kvm_translation translation = {};
  translation.linear_address = linear;
  TRY(call(fd_.get(), KVM_TRANSLATE, "KVM_TRANSLATE", &translation));
  return translation;
}

}  // namespace lodge::engine::kvm
