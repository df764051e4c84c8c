// What this host is: hardware, itself a guest, a container.
#pragma once

#include <string>

#include "host/sources.hpp"

namespace lodge::host {

struct Surroundings {
  bool guest = false;      // CPUID says that a hypervisor is below
  std::string hypervisor;  // its name: "KVM", "Hyper-V", ...; empty on hardware
  std::string machine;     // DMI vendor and product, empty if not readable
  std::string container;   // "docker", "podman", "lxc", ...; empty outside
};

[[nodiscard]] Surroundings read_surroundings(const Sources& sources);

}  // namespace lodge::host
