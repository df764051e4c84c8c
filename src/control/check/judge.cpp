#include <cerrno>
#include <cstring>

#include "control/check/report.hpp"

namespace lodge::control {
namespace {

using host::Facts;
using host::Firmware;
using host::ModuleState;
using host::Virtualization;

constexpr int kApiVersion = 12;                  // the only one since Linux 2.6.22 (api.rst, KVM_GET_API_VERSION)
constexpr uint64_t kSmallMemory = 512ull << 20;  // less than this available, and a stock guest will hardly fit

bool in_container(const Facts& facts) { return !facts.surroundings.container.empty(); }

// The processor offers it and no firmware stands in between.
bool virtualization_usable(const Facts& facts) {
  return (facts.processor.vmx || facts.processor.svm) && facts.processor.firmware != Firmware::Disables;
}

std::string gib(uint64_t bytes) { return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1u << 30)); }

Line processor_line(const Facts& facts) {
  const auto& processor = facts.processor;
  return {"processor.model", Verdict::Good,
          fmt::format("{}, {} logical processor{}", processor.model.empty() ? processor.vendor : processor.model, processor.count,
                      processor.count == 1 ? "" : "s"),
          ""};
}

std::string firmware_advice(Virtualization family) {
  const char* setting = family == Virtualization::Svm ? "\"SVM Mode\" or \"AMD-V\"" : "\"Intel Virtualization Technology\" or \"VT-x\"";
  return fmt::format("turn on {} in the firmware's setup (BIOS, UEFI), then switch the machine off and on again", setting);
}

// What the owner of the machine below has to do so that this one gets VT-x or SVM.
std::string nested_advice(const Facts& facts) {
  const std::string& below = facts.surroundings.hypervisor;
  if (below == "KVM")
    return fmt::format(
        "on the host below: `modprobe -r {0} && modprobe {0} nested=1`, and start this machine with the host's processor (-cpu host); "
        "with a cloud provider, take an instance type with nested virtualization, or bare metal",
        host::module_of(facts.processor.family()));
  if (below == "VMware") return "in this machine's processor settings, turn on \"Virtualize Intel VT-x/EPT or AMD-V/RVI\"";
  if (below == "VirtualBox") return "on the host below: `VBoxManage modifyvm NAME --nested-hw-virt on`";
  if (below == "Hyper-V") return "on the Windows host: `Set-VMProcessor -VMName NAME -ExposeVirtualizationExtensions $true`";
  if (below == "QEMU's TCG") return "start this machine with a processor that has it, such as `-cpu EPYC,+svm`";
  return "ask whoever runs the host below for nested virtualization";
}

Line virtualization_line(const Facts& facts) {
  const auto& processor = facts.processor;
  const std::string name = host::name_of(processor.family());
  if (processor.firmware == Firmware::Disables)
    return {"processor.virtualization", Verdict::Bad, name + " is turned off and locked by the firmware",
            firmware_advice(processor.family())};
  if (processor.vmx || processor.svm)
    return {"processor.virtualization", Verdict::Good,
            fmt::format("offers {}{}", name, processor.firmware == Firmware::Allows ? ", and the firmware allows it" : ""), ""};
  if (facts.surroundings.guest)
    return {"processor.virtualization", Verdict::Bad,
            fmt::format("no {}: {}, the hypervisor below, does not pass it on", name, facts.surroundings.hypervisor), nested_advice(facts)};
  return {"processor.virtualization", Verdict::Bad, fmt::format("no {}", name),
          "many processors have it, but turned off: " + firmware_advice(processor.family())};
}

// The command that loads the module, and where it is to be typed.
std::string modprobe_advice(const Facts& facts) {
  const std::string module = host::module_of(facts.processor.family());
  if (in_container(facts))
    return fmt::format("on the container's host, not in here: `sudo modprobe {}`; then start the container with `--device /dev/kvm`",
                       module);
  return fmt::format("`sudo modprobe {0}` now; `echo {0} | sudo tee /etc/modules-load.d/kvm.conf` for every boot", module);
}

Line module_line(const Facts& facts) {
  const std::string module = host::module_of(facts.processor.family());
  const ModuleState state = facts.modules.of(module);
  if (!virtualization_usable(facts))
    return {"kvm.module", Verdict::Note, fmt::format("{}: {}", module, host::name_of(state)),
            fmt::format("`modprobe {}` does not help here: the module refuses a processor without {}", module,
                        host::name_of(facts.processor.family()))};
  if (active(state)) return {"kvm.module", Verdict::Good, fmt::format("{} is {}", module, host::name_of(state)), ""};
  // A container sees its host's device without its modules: then there is nothing to load.
  if (facts.kvm.answer.open_errno == 0)
    return {"kvm.module", Verdict::Note, fmt::format("{} does not show, yet /dev/kvm is there", module), ""};
  if (state == ModuleState::Available || in_container(facts))
    return {"kvm.module", Verdict::Bad, fmt::format("{} is {}", module, host::name_of(state)), modprobe_advice(facts)};
  return {
      "kvm.module", Verdict::Bad, fmt::format("the kernel {} comes without {}", facts.modules.kernel_release, module),
      fmt::format("install a kernel that has it (Debian: `sudo apt install linux-image-amd64`), reboot into it, then `sudo modprobe {}`",
                  module)};
}

Line pvm_line(const Facts& facts) {
  return {"kvm.pvm", Verdict::Note,
          fmt::format("kvm_pvm is {}: it offers /dev/kvm without VT-x and SVM, but only to guest kernels made for it",
                      host::name_of(facts.modules.kvm_pvm)),
          ""};
}

std::string access_advice(const Facts& facts) {
  const auto& kvm = facts.kvm;
  if (in_container(facts) && !kvm.group_has_kvm) return "start the container with `--device /dev/kvm`, and as a user that may open it";
  if (kvm.user_in_group) return "you are in the group kvm, but this login is older than that: log out and in again, or `newgrp kvm`";
  if (kvm.group_has_kvm) return fmt::format("`sudo usermod -aG kvm {}`, then log out and in again", kvm.user);
  return fmt::format("`sudo setfacl -m u:{}:rw /dev/kvm`; this system has no group kvm", kvm.user);
}

Line absent_device_line(const Facts& facts, const char* what) {
  if (!virtualization_usable(facts)) return {"kvm.device", Verdict::Bad, what, ""};  // the cause stands above
  const bool loaded = active(facts.modules.of(host::module_of(facts.processor.family())));
  if (!loaded) return {"kvm.device", Verdict::Bad, what, modprobe_advice(facts)};
  if (in_container(facts)) return {"kvm.device", Verdict::Bad, what, "start the container with `--device /dev/kvm`"};
  return {"kvm.device", Verdict::Bad, what,
          "`sudo udevadm trigger --sysname-match=kvm`; if that makes none: `sudo mknod -m 660 /dev/kvm c 10 232`"};
}

Line device_line(const Facts& facts) {
  const auto& kvm = facts.kvm;
  switch (kvm.answer.open_errno) {
    case 0: return {"kvm.device", Verdict::Good, fmt::format("/dev/kvm opens for {}", kvm.user), ""};
    case ENOENT: return absent_device_line(facts, "there is no /dev/kvm");
    case ENODEV:
    case ENXIO: return absent_device_line(facts, "/dev/kvm is there, but no driver stands behind it");
    case EACCES:
      return {"kvm.device", Verdict::Bad, fmt::format("/dev/kvm is there, but {} may not open it", kvm.user), access_advice(facts)};
    case EPERM:
      return {"kvm.device", Verdict::Bad, "/dev/kvm is there, but this process is not allowed any use of it",
              in_container(facts) ? "start the container with `--device /dev/kvm`"
                                  : "look at the service's DeviceAllow= or the security module's log"};
    default: return {"kvm.device", Verdict::Bad, fmt::format("/dev/kvm does not open: {}", std::strerror(kvm.answer.open_errno)), ""};
  }
}

int capability(const Facts& facts, const char* name) {
  const auto found = facts.kvm.answer.capabilities.find(name);
  return found != facts.kvm.answer.capabilities.end() ? found->second : 0;
}

Line api_line(const Facts& facts) {
  const int version = facts.kvm.answer.api_version;
  if (version != kApiVersion)
    return {"kvm.api", Verdict::Bad, fmt::format("/dev/kvm speaks API version {}; Lodge speaks {}", version, kApiVersion), ""};
  std::string missing;
  // What the PC is built on; the rest of the list is for programs.
  for (const char* name : {"IRQCHIP", "PIT2", "IRQFD", "IOEVENTFD", "SIGNAL_MSI", "USER_MEMORY", "EXT_CPUID", "XSAVE", "IMMEDIATE_EXIT"}) {
    if (capability(facts, name) == 0) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name);
  }
  if (!missing.empty())
    return {"kvm.api", Verdict::Bad, fmt::format("API version {}, without {}", version, missing), "a newer kernel has them"};
  return {
      "kvm.api", Verdict::Good,
      fmt::format("API version {}, all capabilities that Lodge uses, up to {} virtual processors", version, capability(facts, "MAX_VCPUS")),
      ""};
}

Line proof_line(const Facts& facts, const engine::select::Proof& proof) {
  if (proof.works) return {"kvm.proof", Verdict::Good, fmt::format("runs guests: {} ({:.1f} ms)", proof.reason, proof.milliseconds), ""};
  std::string advice;
  if (active(facts.modules.kvm_pvm) && !virtualization_usable(facts))
    advice = "a stock kernel would hang on this /dev/kvm; use Lodge's own engine (--engine soft, or auto)";
  return {"kvm.proof", Verdict::Bad, "does not run a test guest: " + proof.reason, advice};
}

Section kvm_section(const Facts& facts, const engine::select::Proof& proof) {
  Section section{"The kernel's KVM", {module_line(facts)}};
  if (active(facts.modules.kvm_pvm)) section.lines.push_back(pvm_line(facts));
  section.lines.push_back(device_line(facts));
  if (facts.kvm.answer.open_errno == 0) {
    section.lines.push_back(api_line(facts));
    section.lines.push_back(proof_line(facts, proof));
  }
  return section;
}

// One line for a service that works or is refused with an errno.
Line service_line(const char* id, int error, Verdict otherwise, const char* works, const char* does_not, std::string advice) {
  if (error == 0) return {id, Verdict::Good, works, ""};
  return {id, otherwise, fmt::format("{} ({})", does_not, std::strerror(error)), std::move(advice)};
}

Section soft_section(const Facts& facts) {
  const auto& resources = facts.resources;
  const bool container = in_container(facts);
  Section section{"Lodge's own engine (needs neither VT-x nor SVM)", {}};
  section.lines.push_back(service_line("soft.memfd", resources.executable_memfd, Verdict::Bad, "memory for translated code can be had",
                                       "no executable memory from memfd",
                                       "`sudo sysctl vm.memfd_noexec=0`, or ask the security module (SELinux: execmem)"));
  if (resources.avx) {
    section.lines.push_back({"soft.avx", Verdict::Good, "the processor has AVX", ""});
  } else {
    section.lines.push_back(
        {"soft.avx", Verdict::Bad, "no AVX, or a hypervisor or kernel option that hides it",
         "a processor from 2011 on; in a virtual machine one that shows it (-cpu host), and no `noxsave` on the kernel's command line"});
  }
  if (resources.user_fsgsbase) {
    section.lines.push_back({"soft.fsgsbase", Verdict::Good, "programs may use FSGSBASE", ""});
  } else {
    section.lines.push_back({"soft.fsgsbase", Verdict::Bad, "programs may not use FSGSBASE",
                             "a kernel from 5.9 on, without `nofsgsbase` on its command line, on a processor that has it"});
  }
  section.lines.push_back(service_line("soft.userfaultfd", resources.userfaultfd, Verdict::Note, "userfaultfd can be used",
                                       "no userfaultfd (nothing needs it yet)",
                                       container ? "the container's seccomp profile takes it away" : ""));
  return section;
}

Line memory_line(const Facts& facts) {
  const auto& resources = facts.resources;
  const bool small = resources.memory_available < kSmallMemory;
  return {"host.memory", small ? Verdict::Note : Verdict::Good,
          fmt::format("{} of memory, {} available", gib(resources.memory_total), gib(resources.memory_available)),
          small ? "give guests little (-m 128M), or end something" : ""};
}

Line hugepages_line(const Facts& facts) {
  const auto& resources = facts.resources;
  const std::string transparent = resources.transparent_hugepages.empty() ? "not in this kernel" : resources.transparent_hugepages;
  const std::string reserved = resources.hugepages_total == 0 ? "none reserved"
                                                              : fmt::format("{} of {} MiB reserved, {} free", resources.hugepages_total,
                                                                            resources.hugepage_size >> 20, resources.hugepages_free);
  const bool useful = resources.hugepages_free > 0 || transparent == "always" || transparent == "madvise";
  return {"host.hugepages", useful ? Verdict::Good : Verdict::Note,
          fmt::format("huge pages: {}; transparent ones: {}", reserved, transparent),
          useful ? "" : "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled` makes guests faster"};
}

Line io_uring_line(const Facts& facts) {
  return service_line("host.io_uring", facts.resources.io_uring, Verdict::Note, "io_uring can be used", "no io_uring: slower disks",
                      in_container(facts) ? "the container's seccomp profile takes it away" : "`sudo sysctl kernel.io_uring_disabled=0`");
}

Line tun_line(const Facts& facts) {
  const int error = facts.resources.tun;
  std::string advice = fmt::format("`sudo setfacl -m u:{}:rw /dev/net/tun`", facts.kvm.user);
  if (error == ENOENT || error == ENODEV)
    advice = in_container(facts) ? "start the container with `--device /dev/net/tun`" : "`sudo modprobe tun`";
  return service_line("host.tun", error, Verdict::Note,
                      "/dev/net/tun opens: tap networks can be made with the right to administer the network",
                      "/dev/net/tun does not open: no tap networks", advice);
}

Section host_section(const Facts& facts) {
  const auto& surroundings = facts.surroundings;
  const std::string machine = surroundings.machine.empty() ? "" : fmt::format(" ({})", surroundings.machine);
  Section section{"This host", {}};
  section.lines.push_back(surroundings.guest ? Line{"host.machine", Verdict::Note,
                                                    fmt::format("is itself a guest of {}{}", surroundings.hypervisor, machine), ""}
                                             : Line{"host.machine", Verdict::Good, "runs on the hardware" + machine, ""});
  if (in_container(facts))
    section.lines.push_back({"host.container", Verdict::Note, fmt::format("is a container ({})", surroundings.container), ""});
  section.lines.push_back(memory_line(facts));
  section.lines.push_back(hugepages_line(facts));
  section.lines.push_back(io_uring_line(facts));
  section.lines.push_back(tun_line(facts));
  return section;
}

}  // namespace

Report judge(const host::Facts& facts, const engine::select::Proof& proof, const engine::select::Choice& choice) {
  Report report;
  report.sections.push_back({"Processor", {processor_line(facts), virtualization_line(facts)}});
  report.sections.push_back(kvm_section(facts, proof));
  report.sections.push_back(soft_section(facts));
  report.sections.push_back(host_section(facts));
  report.choice = choice;
  return report;
}

}  // namespace lodge::control
