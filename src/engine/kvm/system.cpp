#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "base/fd.hpp"
#include "engine/kvm/abi.hpp"
#include "engine/kvm/device.hpp"
#include "engine/kvm/kvm.hpp"
#include "engine/kvm/vm.hpp"

namespace lodge::engine::kvm {

namespace {

struct Needed {
  int capability;
  const char* name;
};
// What the boundary of engine/api is built on; all are older than Linux 4.12.
constexpr Needed kNeeded[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    {KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

class KvmSystem final : public System {
 public:
  KvmSystem(Fd fd, std::string device, size_t run_size) : fd_(std::move(fd)), device_(std::move(device)), run_size_(run_size) {}

  [[nodiscard]] std::string_view name() const override { return "kvm"; }
  [[nodiscard]] int check_extension(uint32_t capability) const override {
    const int result = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
    return result < 0 ? 0 : result;
  }
  [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> get_supported_cpuid() override;
  [[nodiscard]] Result<std::vector<uint32_t>> get_msr_index_list() override;
  [[nodiscard]] Result<std::unique_ptr<Vm>> create_vm() override;

 private:
  Fd fd_;
  std::string device_;
  size_t run_size_;  // of the mapping of a vCPU's descriptor
};

Result<std::vector<kvm_cpuid_entry2>> KvmSystem::get_supported_cpuid() {
  // The kernel says only that the list was too short (E2BIG), not by how much.
  for (size_t room = 128; room <= 4096; room *= 2) {
    std::vector<std::byte> bytes(sizeof(Cpuid2Header) + room * sizeof(kvm_cpuid_entry2));
    auto* list = reinterpret_cast<Cpuid2Header*>(bytes.data());
    list->nent = static_cast<uint32_t>(room);
    const auto result = call(fd_.get(), kGetSupportedCpuid, "KVM_GET_SUPPORTED_CPUID", list);
    if (!result && result.error().os_errno == E2BIG) continue;
    if (!result) return std::unexpected(result.error());
    std::vector<kvm_cpuid_entry2> entries(list->nent);
    std::memcpy(entries.data(), list + 1, entries.size() * sizeof(kvm_cpuid_entry2));
    return entries;
  }
  return fail(ErrorKind::Unsupported, "KVM_GET_SUPPORTED_CPUID: more than 4096 entries");
}

Result<std::vector<uint32_t>> KvmSystem::get_msr_index_list() {
  MsrListHeader probe = {};
  const auto asked = call(fd_.get(), kGetMsrIndexList, "KVM_GET_MSR_INDEX_LIST", &probe);
  if (!asked && asked.error().os_errno != E2BIG) return std::unexpected(asked.error());
  std::vector<uint32_t> words(1 + probe.nmsrs);
  words[0] = probe.nmsrs;
  TRY(call(fd_.get(), kGetMsrIndexList, "KVM_GET_MSR_INDEX_LIST", words.data()));
  return std::vector<uint32_t>(words.begin() + 1, words.begin() + 1 + std::min(words[0], probe.nmsrs));
}

Result<std::unique_ptr<Vm>> KvmSystem::create_vm() {
  const auto fd = call(fd_.get(), KVM_CREATE_VM, "KVM_CREATE_VM", 0UL);
  if (!fd) {
    if (fd.error().os_errno == EBUSY)
      return std::unexpected(
          Error{ErrorKind::Unsupported,
                fmt::format("{}: another hypervisor (VirtualBox or VMware, say) holds the processor's virtualization: "
                            "stop its VMs and unload its module (for VirtualBox: modprobe -r vboxdrv), or use --engine soft",
                            device_),
                EBUSY});
    return std::unexpected(os_error(fmt::format("{}: KVM_CREATE_VM", device_), fd.error().os_errno));
  }
  return KvmVm::create(Fd(*fd), run_size_);
}

Error cannot_open(const std::string& device, int error) {
  switch (error) {
    case ENOENT:
      return {ErrorKind::NotFound,
              fmt::format("{} does not exist: load KVM's module (modprobe kvm_intel or kvm_amd), or use --engine soft", device), error};
    case ENODEV:
    case ENXIO:
      return {ErrorKind::NotFound,
              fmt::format("{} exists, but no KVM module stands behind it: load it (modprobe kvm_intel or kvm_amd), or use --engine soft",
                          device),
              error};
    case EACCES:
    case EPERM:
      return {ErrorKind::Permission,
              fmt::format("{} may not be opened by this user: join the kvm group (sudo usermod -aG kvm $USER, then log in again), or use "
                          "--engine soft",
                          device),
              error};
    case EBUSY:
      return {
          ErrorKind::Unsupported,
          fmt::format("{} is busy: another hypervisor (VirtualBox or VMware, say) holds the processor's virtualization: stop it, or use "
                      "--engine soft",
                      device),
          error};
    default: return os_error(device, error);
  }
}

}  // namespace

Result<std::unique_ptr<System>> create_system(const std::string& device) {
  Fd fd(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return std::unexpected(cannot_open(device, errno));
  const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version < 0) return fail(ErrorKind::Unsupported, "{} is not a KVM device", device);
  if (version != KVM_API_VERSION)
    return fail(ErrorKind::Unsupported, "{} speaks version {} of the KVM interface, not {}: use --engine soft", device, version,
                KVM_API_VERSION);
  for (const Needed& needed : kNeeded)
    if (::ioctl(fd.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(needed.capability)) <= 0)
      return fail(ErrorKind::Unsupported, "{}: this kernel's KVM has no {}: use a newer kernel, or --engine soft", device, needed.name);
  const auto run_size = static_cast<size_t>(TRY(call(fd.get(), KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", 0UL)));
  return std::make_unique<KvmSystem>(std::move(fd), device, run_size);
}

}  // namespace lodge::engine::kvm
