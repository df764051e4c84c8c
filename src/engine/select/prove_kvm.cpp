// The proof of a KVM device, in a child process that can be killed.
//
// A KVM that cannot run the guest may spin in the kernel for good, so the guest runs in a child. The parent may have many
// threads, any of which may hold a lock of malloc or of the log at the moment of the fork; so the child makes
// nothing but system calls, on memory that the parent prepared, and shares that memory with the parent, which reads
// the outcome there. The child is made with clone(CLONE_PIDFD) and no exit signal: no SIGCHLD reaches the program, no
// wait() of its other parts finds this child, and its end can be waited for with a deadline.
#include <cpuid.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <new>

#include "base/fd.hpp"
#include "engine/kvm/abi.hpp"
#include "engine/kvm/kvm.hpp"
#include "engine/select/proof.hpp"
#include "engine/select/proof_payload.h"
#include "engine/select/select.hpp"

namespace lodge::engine::select {

namespace {

// A loaded machine with VT-x or SVM may need long for milliseconds of work. Without either, a driver that opens is hardly one that runs
// unmodified guests (kvm_pvm hangs), and who waits for the answer is starting a VM: it has to prove itself at once.
int deadline_ms() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool vmx = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 5);
  const bool svm = __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 2);
  return vmx || svm ? 2000 : 100;
}
constexpr int kKillDeadlineMs = 3000;
constexpr uint32_t kMaxCpuidEntries = 512;

// Written by the child, read by the parent.
struct Outcome {
  std::atomic<const char*> call = nullptr;  // the system call that is under way or failed; a literal, at the same address on both sides
  int error = 0;                            // its errno
  bool finished = false;                    // KVM_RUN returned
  uint32_t exit_reason = 0;
  uint16_t io_port = 0;
};

// All that parent and child share. The guest's memory comes first: it must begin on a page.
struct Shared {
  std::byte memory[PROOF_MEMORY_SIZE];
  alignas(kvm_cpuid_entry2) std::byte cpuid[sizeof(kvm::Cpuid2Header) + kMaxCpuidEntries * sizeof(kvm_cpuid_entry2)];
  Outcome outcome;
};

// The child: system calls only.
class Child {
 public:
  Child(Shared& shared, const char* device) : shared_(shared), device_(device) {}

  [[noreturn]] void run() {
    // If the parent dies, so does this.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    shared_.outcome.error = attempt() ? 0 : errno;
    _exit(0);
  }

 private:
  int control(const char* name, int fd, unsigned long request, unsigned long argument) {
    shared_.outcome.call = name;
    int result;
    do {
      result = ::ioctl(fd, request, argument);
    } while (result < 0 && errno == EINTR);
    return result;
  }
  template <typename T>
  int control(const char* name, int fd, unsigned long request, T* argument) {
    return control(name, fd, request, reinterpret_cast<unsigned long>(argument));
  }

  bool attempt() {
    shared_.outcome.call = "open";
    const int device = ::open(device_, O_RDWR | O_CLOEXEC);
    if (device < 0) return false;
    const int vm = control("KVM_CREATE_VM", device, KVM_CREATE_VM, 0UL);
    if (vm < 0) return false;
    if (control("KVM_SET_TSS_ADDR", vm, KVM_SET_TSS_ADDR, 0xfeffd000UL) < 0) return false;
    if (control("KVM_CREATE_IRQCHIP", vm, KVM_CREATE_IRQCHIP, 0UL) < 0) return false;
    kvm_userspace_memory_region region = {};
    region.memory_size = PROOF_MEMORY_SIZE;
    region.userspace_addr = reinterpret_cast<uint64_t>(shared_.memory);
    if (control("KVM_SET_USER_MEMORY_REGION", vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) return false;
    const int vcpu = control("KVM_CREATE_VCPU", vm, KVM_CREATE_VCPU, 0UL);
    if (vcpu < 0) return false;
    auto* cpuid = reinterpret_cast<kvm::Cpuid2Header*>(shared_.cpuid);
    cpuid->nent = kMaxCpuidEntries;
    if (control("KVM_GET_SUPPORTED_CPUID", device, kvm::kGetSupportedCpuid, cpuid) < 0) return false;
    if (control("KVM_SET_CPUID2", vcpu, kvm::kSetCpuid2, cpuid) < 0) return false;
    kvm_sregs sregs = {};
    kvm_regs regs = {};
    if (control("KVM_GET_SREGS", vcpu, KVM_GET_SREGS, &sregs) < 0) return false;
    set_proof_state(sregs, regs);
    if (control("KVM_SET_SREGS", vcpu, KVM_SET_SREGS, &sregs) < 0) return false;
    if (control("KVM_SET_REGS", vcpu, KVM_SET_REGS, &regs) < 0) return false;
    const int run_size = control("KVM_GET_VCPU_MMAP_SIZE", device, KVM_GET_VCPU_MMAP_SIZE, 0UL);
    if (run_size < 0) return false;
    shared_.outcome.call = "mmap";
    void* mapped = mmap(nullptr, static_cast<size_t>(run_size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (mapped == MAP_FAILED) return false;
    if (control("KVM_RUN", vcpu, KVM_RUN, 0UL) < 0) return false;
    const auto* run = static_cast<const kvm_run*>(mapped);
    shared_.outcome.exit_reason = run->exit_reason;
    shared_.outcome.io_port = run->exit_reason == KVM_EXIT_IO ? run->io.port : 0;
    shared_.outcome.finished = true;
    return true;
  }

  Shared& shared_;
  const char* device_;
};

// Waits for the child's end, at most so long; true if it ended.
bool wait_until(int pidfd, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd event = {pidfd, POLLIN, 0};
    const int ready = poll(&event, 1, left < 0 ? 0 : static_cast<int>(left));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) return false;
  }
}

void reap(pid_t pid) {
  // __WALL: a child without an exit signal is waited for only on request.
  while (waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) continue;
}

std::string outcome_in_words(const Shared& shared, const std::string& device) {
  const std::span<const std::byte> memory(shared.memory);
  const Outcome& outcome = shared.outcome;
  if (!outcome.finished)
    return os_error(fmt::format("{} opens, but {} failed", device, outcome.call ? outcome.call.load() : "the first call"), outcome.error)
        .message;
  if (outcome.exit_reason != KVM_EXIT_IO || outcome.io_port != PROOF_PORT)
    return fmt::format("{} opens, but its test guest stopped in the step on {} (KVM's exit reason {})", device, proof_step(memory),
                       outcome.exit_reason);
  if (const std::string wrong = check_proof(memory); !wrong.empty())
    return fmt::format("{} opens, but its test guest failed in the step on {}: {}", device, proof_step(memory), wrong);
  return {};
}

// Runs the child to its end or to the deadline. The reason why the proof failed; empty if it did not.
std::string run_child(Shared& shared, const std::string& device) {
  int pidfd_number = -1;
  const long pid = syscall(SYS_clone, static_cast<unsigned long>(CLONE_PIDFD), 0UL, &pidfd_number, nullptr, 0UL);
  if (pid < 0) return os_error("starting the process of the test guest").message;
  if (pid == 0) Child(shared, device.c_str()).run();

  const Fd pidfd(pidfd_number);
  const int limit = deadline_ms();
  const auto start = std::chrono::steady_clock::now();
  if (wait_until(pidfd.get(), start + std::chrono::milliseconds(limit))) {
    reap(static_cast<pid_t>(pid));
    return outcome_in_words(shared, device);
  }
  const char* call = shared.outcome.call;
  const char* step = proof_step(shared.memory);
  syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  const bool died = wait_until(pidfd.get(), std::chrono::steady_clock::now() + std::chrono::milliseconds(kKillDeadlineMs));
  if (died) reap(static_cast<pid_t>(pid));
  return fmt::format("{} opens, but its test guest hung for {} ms in {} (the step on {}){}", device, limit, call ? call : "its first call",
                     step, died ? "" : fmt::format("; process {} is stuck in the kernel and did not even end when killed", pid));
}

}  // namespace

Proof prove_kvm(const std::string& device) {
  const auto start = std::chrono::steady_clock::now();
  Proof proof;
  // Whether it opens, speaks the right version and has what Lodge needs is no danger, and has messages of its own.
  if (const auto system = kvm::create_system(device); !system) {
    proof.reason = system.error().message;
  } else if (void* base = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); base == MAP_FAILED) {
    proof.reason = os_error("memory for the test guest").message;
  } else {
    auto* shared = new (base) Shared();
    load_proof(shared->memory);
    const std::string wrong = run_child(*shared, device);
    proof.works = wrong.empty();
    proof.reason = proof.works ? fmt::format("{} ran a 64-bit guest as it should", device) : wrong;
    munmap(base, sizeof(Shared));
  }
  proof.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return proof;
}

}  // namespace lodge::engine::select
