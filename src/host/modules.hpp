// The kernel's KVM modules: built in, loaded, there to be loaded, or missing.
#pragma once

#include <string>

#include "host/sources.hpp"

namespace lodge::host {

enum class ModuleState { Missing, Available, Loaded, BuiltIn };

struct Modules {
  std::string kernel_release;
  bool folder_present = false;  // /lib/modules/RELEASE; in a container it seldom is, so that Missing says nothing there
  ModuleState kvm = ModuleState::Missing;
  ModuleState kvm_intel = ModuleState::Missing;
  ModuleState kvm_amd = ModuleState::Missing;
  ModuleState kvm_pvm = ModuleState::Missing;  // /dev/kvm without VT-x and SVM, for guest kernels made for it only

  [[nodiscard]] ModuleState of(const std::string& module) const;
};

[[nodiscard]] Modules read_modules(const Sources& sources);

[[nodiscard]] bool active(ModuleState state);  // loaded or built in
[[nodiscard]] const char* name_of(ModuleState state);

}  // namespace lodge::host
