#include "host/surroundings.hpp"

#include <utility>

namespace lodge::host {
namespace {

constexpr std::pair<const char*, const char*> kHypervisors[] = {
    {"KVMKVMKVM", "KVM"},          {"TCGTCGTCGTCG", "QEMU's TCG"},  {"Microsoft Hv", "Hyper-V"}, {"VMwareVMware", "VMware"},
    {"XenVMMXenVMM", "Xen"},       {"VBoxVBoxVBox", "VirtualBox"},  {"bhyve bhyve ", "bhyve"},   {"ACRNACRNACRN", "ACRN"},
    {" lrpepyh  vr", "Parallels"}, {"OpenBSDVMM58", "OpenBSD vmm"},
};

std::string hypervisor_name(const std::string& signature) {
  for (const auto& [known, name] : kHypervisors) {
    if (signature == known) return name;
  }
  return signature;
}

std::string first_line(const Sources& sources, const std::string& path) {
  const std::string text = read_text(sources, path).value_or("");
  return text.substr(0, text.find('\n'));
}

std::string machine_name(const Sources& sources) {
  const std::string vendor = first_line(sources, "sys/class/dmi/id/sys_vendor");
  const std::string product = first_line(sources, "sys/class/dmi/id/product_name");
  return vendor.empty() || product.empty() ? vendor + product : vendor + " " + product;
}

// The variable `container` of process 1, systemd's container interface. Its environment is a list of NUL-ended strings.
std::string container_of_init(const Sources& sources) {
  const std::string text = '\0' + read_text(sources, "proc/1/environ").value_or("");
  constexpr std::string_view kVariable("\0container=", 11);
  const size_t start = text.find(kVariable);
  if (start == std::string::npos) return "";
  return text.substr(start + kVariable.size()).c_str();  // up to the NUL
}

std::string container_by_cgroup(const Sources& sources) {
  const std::string text = read_text(sources, "proc/1/cgroup").value_or("");
  for (const char* name : {"docker", "kubepods", "containerd", "libpod", "lxc"}) {
    if (text.find(name) != std::string::npos) return name;
  }
  return "";
}

std::string container_name(const Sources& sources) {
  if (std::string name = first_line(sources, "run/systemd/container"); !name.empty()) return name;
  if (exists(sources, ".dockerenv")) return "docker";
  if (exists(sources, "run/.containerenv")) return "podman";
  if (std::string name = container_of_init(sources); !name.empty()) return name;
  return container_by_cgroup(sources);
}

}  // namespace

Surroundings read_surroundings(const Sources& sources) {
  const std::string signature = sources.hypervisor_signature();
  return Surroundings{.guest = !signature.empty(),
                      .hypervisor = hypervisor_name(signature),
                      .machine = machine_name(sources),
                      .container = container_name(sources)};
}

}  // namespace lodge::host
