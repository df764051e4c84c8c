#include "host/modules.hpp"

#include <algorithm>
#include <sstream>

namespace lodge::host {
namespace {

// Is there a line that starts with `word`, followed by a space? (/proc/modules)
bool line_starts(const std::string& text, const std::string& word) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(word + " ")) return true;
  }
  return false;
}

// Does a list of module files name this one? Files spell it with dashes, and may be compressed: ".../kvm-intel.ko.xz:".
bool lists_file(const std::string& text, std::string module) {
  std::ranges::replace(module, '_', '-');
  return text.find("/" + module + ".ko") != std::string::npos;
}

ModuleState read_module(const Sources& sources, const std::string& release, const std::string& module) {
  if (line_starts(read_text(sources, "proc/modules").value_or(""), module)) return ModuleState::Loaded;
  const std::string folder = "lib/modules/" + release;
  if (lists_file(read_text(sources, folder + "/modules.builtin").value_or(""), module)) return ModuleState::BuiltIn;
  // What is built in and has parameters shows in sysfs, also where /lib/modules is not at hand.
  if (exists(sources, "sys/module/" + module)) return ModuleState::BuiltIn;
  if (lists_file(read_text(sources, folder + "/modules.dep").value_or(""), module)) return ModuleState::Available;
  return ModuleState::Missing;
}

}  // namespace

ModuleState Modules::of(const std::string& module) const {
  if (module == "kvm") return kvm;
  if (module == "kvm_intel") return kvm_intel;
  if (module == "kvm_amd") return kvm_amd;
  if (module == "kvm_pvm") return kvm_pvm;
  return ModuleState::Missing;
}

Modules read_modules(const Sources& sources) {
  Modules modules;
  modules.kernel_release = sources.kernel_release();
  modules.folder_present = exists(sources, "lib/modules/" + modules.kernel_release);
  modules.kvm = read_module(sources, modules.kernel_release, "kvm");
  modules.kvm_intel = read_module(sources, modules.kernel_release, "kvm_intel");
  modules.kvm_amd = read_module(sources, modules.kernel_release, "kvm_amd");
  modules.kvm_pvm = read_module(sources, modules.kernel_release, "kvm_pvm");
  return modules;
}

bool active(ModuleState state) { return state == ModuleState::Loaded || state == ModuleState::BuiltIn; }

const char* name_of(ModuleState state) {
  switch (state) {
    case ModuleState::Missing: return "missing";
    case ModuleState::Available: return "not loaded";
    case ModuleState::Loaded: return "loaded";
    case ModuleState::BuiltIn: return "built in";
  }
  return "";
}

}  // namespace lodge::host
