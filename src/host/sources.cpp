#include "host/sources.hpp"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pwd.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/fd.hpp"

namespace lodge::host {
namespace {

constexpr uint32_t kCpuidHypervisorLeaf = 0x4000'0000;
constexpr uint32_t kCpuidHypervisorBit = 1u << 31;  // leaf 1, ECX
constexpr unsigned long kHwcap2FsGsBase = 1u << 1;  // Linux asm/hwcap2.h
constexpr int kSyslogReadAll = 3;                   // syslog(2): SYSLOG_ACTION_READ_ALL
constexpr int kSyslogSizeBuffer = 10;               // SYSLOG_ACTION_SIZE_BUFFER
constexpr unsigned kMfdExec = 0x10;                 // MFD_EXEC, Linux 6.3

constexpr std::pair<const char*, int> kCapabilities[] = {
    {"IRQCHIP", KVM_CAP_IRQCHIP},
    {"USER_MEMORY", KVM_CAP_USER_MEMORY},
    {"SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR},
    {"EXT_CPUID", KVM_CAP_EXT_CPUID},
    {"NR_VCPUS", KVM_CAP_NR_VCPUS},
    {"MAX_VCPUS", KVM_CAP_MAX_VCPUS},
    {"NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS},
    {"PIT2", KVM_CAP_PIT2},
    {"IRQFD", KVM_CAP_IRQFD},
    {"IOEVENTFD", KVM_CAP_IOEVENTFD},
    {"SIGNAL_MSI", KVM_CAP_SIGNAL_MSI},
    {"XSAVE", KVM_CAP_XSAVE},
    {"XCRS", KVM_CAP_XCRS},
    {"TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER},
    {"READONLY_MEM", KVM_CAP_READONLY_MEM},
    {"IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT},
    {"VCPU_EVENTS", KVM_CAP_VCPU_EVENTS},
    {"DEBUGREGS", KVM_CAP_DEBUGREGS},
};

std::string kernel_release() {
  utsname name{};
  return uname(&name) == 0 ? name.release : "";
}

std::string user_name() {
  const passwd* entry = getpwuid(geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(geteuid());
}

std::string hypervisor_signature() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kCpuidHypervisorBit) == 0) return "";
  __cpuid(kCpuidHypervisorLeaf, eax, ebx, ecx, edx);
  char signature[13] = {};
  std::memcpy(signature, &ebx, 4);
  std::memcpy(signature + 4, &ecx, 4);
  std::memcpy(signature + 8, &edx, 4);
  return signature[0] != '\0' ? signature : "unknown";
}

// The msr driver takes the register's number as the file offset (msr(4)).
std::optional<uint64_t> read_msr(uint32_t index) {
  const Fd device(open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC));
  uint64_t value = 0;
  if (!device || pread(device.get(), &value, sizeof value, index) != static_cast<ssize_t>(sizeof value)) return std::nullopt;
  return value;
}

std::optional<std::string> kernel_log() {
  const int size = klogctl(kSyslogSizeBuffer, nullptr, 0);
  if (size <= 0) return std::nullopt;
  std::string text(static_cast<size_t>(size), '\0');
  const int length = klogctl(kSyslogReadAll, text.data(), size);
  if (length < 0) return std::nullopt;
  text.resize(static_cast<size_t>(length));
  return text;
}

KvmAnswer ask_kvm(const std::filesystem::path& path) {
  KvmAnswer answer;
  const Fd device(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!device) {
    answer.open_errno = errno;
    return answer;
  }
  answer.api_version = ioctl(device.get(), KVM_GET_API_VERSION, 0);
  for (const auto& [name, number] : kCapabilities) {
    const int value = ioctl(device.get(), KVM_CHECK_EXTENSION, number);
    answer.capabilities[name] = value > 0 ? value : 0;
  }
  return answer;
}

int io_uring() {
  io_uring_params parameters{};
  const Fd ring(static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters)));
  return ring ? 0 : errno;
}

int userfaultfd() {
  const Fd handle(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  return handle ? 0 : errno;
}

int open_tun(const std::filesystem::path& path) {
  const Fd device(open(path.c_str(), O_RDWR | O_CLOEXEC));
  return device ? 0 : errno;
}

// vm.memfd_noexec may turn MFD_EXEC down, a security module the executable mapping. Kernels before 6.3 do not know the flag.
int executable_memfd() {
  Fd file(memfd_create("lodge-check", MFD_CLOEXEC | kMfdExec));
  if (!file && errno == EINVAL) file.reset(memfd_create("lodge-check", MFD_CLOEXEC));
  constexpr size_t kPage = 4096;
  if (!file || ftruncate(file.get(), kPage) != 0) return errno;
  void* mapping = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, file.get(), 0);
  if (mapping == MAP_FAILED) return errno;
  munmap(mapping, kPage);
  return 0;
}

bool avx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kOsxsaveAndAvx = 3u << 27;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & kOsxsaveAndAvx) != kOsxsaveAndAvx) return false;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  constexpr unsigned kX87SseAvx = 7;
  return (eax & kX87SseAvx) == kX87SseAvx;
}

bool user_fsgsbase() { return (getauxval(AT_HWCAP2) & kHwcap2FsGsBase) != 0; }

}  // namespace

Sources system_sources() {
  return Sources{.root = "/",
                 .kernel_release = kernel_release,
                 .user_name = user_name,
                 .hypervisor_signature = hypervisor_signature,
                 .read_msr = read_msr,
                 .kernel_log = kernel_log,
                 .ask_kvm = ask_kvm,
                 .io_uring = io_uring,
                 .userfaultfd = userfaultfd,
                 .open_tun = open_tun,
                 .executable_memfd = executable_memfd,
                 .avx = avx,
                 .user_fsgsbase = user_fsgsbase};
}

std::optional<std::string> read_text(const Sources& sources, const std::string& path) {
  const std::ifstream file(sources.root / path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const Sources& sources, const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(sources.root / path, ignored);
}

}  // namespace lodge::host
