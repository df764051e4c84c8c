// What the processor offers for running guests, and what the firmware allows of it.
#pragma once

#include <string>

#include "host/sources.hpp"

namespace lodge::host {

// The two families of processor virtualization, by the module that drives them.
enum class Virtualization { None, Vmx, Svm };

enum class Firmware {
  Unknown,   // neither register nor kernel log could be read, or they say nothing
  Allows,    // the register says so
  Disables,  // the firmware turned it off and locked the register: only its setup can change that
};

struct Processor {
  std::string vendor;  // CPUID's: GenuineIntel, AuthenticAMD, ...
  std::string model;
  unsigned count = 0;  // logical processors online
  bool vmx = false;    // Intel VT-x, as /proc/cpuinfo says
  bool svm = false;    // AMD-V
  Firmware firmware = Firmware::Unknown;

  // What it offers or, by its vendor, would offer.
  [[nodiscard]] Virtualization family() const;
};

[[nodiscard]] Processor read_processor(const Sources& sources);

[[nodiscard]] const char* name_of(Virtualization family);    // "Intel VT-x (vmx)"
[[nodiscard]] const char* module_of(Virtualization family);  // "kvm_intel"

}  // namespace lodge::host
