#include <cpuid.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "engine/soft/cpu/msr.hpp"
#include "engine/soft/cpuid/cpuid.hpp"
#include "engine/soft/soft.hpp"
#include "engine/soft/vcpu/tsc_frequency.hpp"
#include "engine/soft/vcpu/vm.hpp"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace lodge::engine::soft {

namespace {

class SoftSystem final : public System {
 public:
  explicit SoftSystem(const Options& options) : options_(options) {}

  [[nodiscard]] std::string_view name() const override { return "soft"; }
  [[nodiscard]] int check_extension(uint32_t capability) const override;
  [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> get_supported_cpuid() override {
    constexpr uint32_t kVirtualKhz = 1'000'000;
    return supported_cpuid(options_.virtual_clock ? kVirtualKhz : static_cast<uint32_t>(tsc_frequency_khz()));
  }
  [[nodiscard]] Result<std::vector<uint32_t>> get_msr_index_list() override {
    return std::vector<uint32_t>(kMsrIndexList, kMsrIndexList + kMsrIndexCount);
  }
  [[nodiscard]] Result<std::unique_ptr<Vm>> create_vm() override { return soft::create_vm(options_); }

 private:
  Options options_;
};

// What api.rst ties to the capability stands behind engine/api; calls that engine/api has not are not claimed.
int SoftSystem::check_extension(uint32_t capability) const {
  switch (capability) {
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
    case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
    case KVM_CAP_SYNC_MMU:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_PIT2:
    case KVM_CAP_PIT_STATE2:
    case KVM_CAP_IRQFD:
    case KVM_CAP_IOEVENTFD:
    case KVM_CAP_IOEVENTFD_NO_LENGTH:
    case KVM_CAP_IOEVENTFD_ANY_LENGTH:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_USER_NMI:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_ADJUST_CLOCK:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_SET_GUEST_DEBUG:
    case KVM_CAP_TSC_DEADLINE_TIMER:
    case KVM_CAP_IRQ_INJECT_STATUS:
    case KVM_CAP_NOP_IO_DELAY: return 1;
    case KVM_CAP_IRQ_ROUTING: return 4096;
    case KVM_CAP_NR_MEMSLOTS: return PhysicalMap::kMaxSlots;
    case KVM_CAP_NR_VCPUS: return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    case KVM_CAP_MAX_VCPUS: return options_.virtual_clock ? 1 : static_cast<int>(kMaxVcpus);
    case KVM_CAP_MAX_VCPU_ID: return 256;
    default: return 0;
  }
}

// Guest mode swaps GS by WRGSBASE: a system call each way would cost more than most exits.
Result<> check_fsgsbase() {
  constexpr unsigned long kHwcap2Fsgsbase = 1 << 1;  // arch/x86/include/uapi/asm/hwcap2.h
  if (getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) return {};
  return fail(
      ErrorKind::Unsupported,
      "the software engine needs the FSGSBASE instructions in user mode: a processor of 2013 or later (Ivy Bridge, Zen) and Linux 5.9 "
      "or later, booted without nofsgsbase");
}

// The guest's vector state is saved and loaded by XSAVE with AVX in it, and spilled by AVX's moves.
Result<> check_avx() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr uint32_t kOsxsaveAndAvx = 3u << 27;
  constexpr uint64_t kX87SseAvx = 7;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & kOsxsaveAndAvx) == kOsxsaveAndAvx) {
    asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    if ((eax & kX87SseAvx) == kX87SseAvx) return {};
  }
  return fail(
      ErrorKind::Unsupported,
      "the software engine needs AVX: a processor of 2011 or later, a hypervisor below that shows it, and a kernel booted without noxsave");
}

// Translated code lies in a memfd that is mapped a second time, executable.
Result<> check_executable_memfd() {
  Fd memory(static_cast<int>(syscall(SYS_memfd_create, "lodge-check", MFD_CLOEXEC | MFD_EXEC)));
  // Kernels before 6.3 do not know MFD_EXEC; their memfds are executable.
  if (!memory && errno == EINVAL) memory.reset(static_cast<int>(syscall(SYS_memfd_create, "lodge-check", MFD_CLOEXEC)));
  if (!memory) {
    const int error = errno;
    if (error == EACCES || error == EPERM)
      return std::unexpected(
          Error{ErrorKind::Unsupported,
                "the software engine needs executable memfds, and this host forbids them: set the sysctl vm.memfd_noexec to "
                "0 or 1 (sudo sysctl vm.memfd_noexec=1)",
                error});
    return os_fail("memfd_create", error);
  }
  constexpr size_t kPage = 4096;
  if (ftruncate(memory.get(), kPage) < 0) return os_fail("memfd: ftruncate");
  void* mapping = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, memory.get(), 0);
  if (mapping == MAP_FAILED)
    return std::unexpected(Error{ErrorKind::Unsupported,
                                 "the software engine needs executable shared memory, and this host's security policy forbids it "
                                 "(SELinux: the boolean deny_execmem; containers: their seccomp or AppArmor profile)",
                                 errno});
  munmap(mapping, kPage);
  return {};
}

}  // namespace

Result<std::unique_ptr<System>> create_system(const Options& options) {
  if (options.virtual_clock && options.picoseconds_per_instruction == 0)
    return fail(ErrorKind::Usage, "a virtual clock needs a time per instruction above 0 ps");
  constexpr uint64_t kLeastCodeCache = 256 << 10;
  if (options.code_cache_size < kLeastCodeCache) return fail(ErrorKind::Usage, "the code cache needs at least 256 KiB");
  TRY(check_avx());
  TRY(check_fsgsbase());
  TRY(check_executable_memfd());
  if (!options.virtual_clock) tsc_frequency_begin();
  return std::make_unique<SoftSystem>(options);
}

}  // namespace lodge::engine::soft
