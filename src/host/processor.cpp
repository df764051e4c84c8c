#include "host/processor.hpp"

#include <sstream>

namespace lodge::host {
namespace {

// IA32_FEATURE_CONTROL, SDM vol. 4, table 2-2.
constexpr uint32_t kMsrFeatureControl = 0x3a;
constexpr uint64_t kFeatureControlLock = 1u << 0;
constexpr uint64_t kFeatureControlVmxOutsideSmx = 1u << 2;
// VM_CR, AMD64 APM vol. 2, 15.30.1.
constexpr uint32_t kMsrVmCr = 0xc001'0114;
constexpr uint64_t kVmCrLock = 1u << 3;
constexpr uint64_t kVmCrSvmDisable = 1u << 4;

std::string after_colon(const std::string& line) {
  const size_t start = line.find_first_not_of(" \t", line.find(':') + 1);
  return start == std::string::npos ? "" : line.substr(start);
}

void read_flags(const std::string& list, Processor& processor) {
  std::istringstream words(list);
  for (std::string word; words >> word;) {
    processor.vmx |= word == "vmx";
    processor.svm |= word == "svm";
  }
}

void read_cpuinfo(const std::string& text, Processor& processor) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(':') == std::string::npos) continue;
    if (line.starts_with("processor")) ++processor.count;
    if (processor.count > 1) continue;  // the first one speaks for all
    if (line.starts_with("vendor_id")) processor.vendor = after_colon(line);
    if (line.starts_with("model name")) processor.model = after_colon(line);
    if (line.starts_with("flags")) read_flags(after_colon(line), processor);
  }
}

Firmware firmware_by_msr(const Sources& sources, Virtualization family) {
  if (family == Virtualization::Vmx) {
    const auto value = sources.read_msr(kMsrFeatureControl);
    if (!value) return Firmware::Unknown;
    const bool locked_off = (*value & kFeatureControlLock) != 0 && (*value & kFeatureControlVmxOutsideSmx) == 0;
    return locked_off ? Firmware::Disables : Firmware::Allows;
  }
  if (family == Virtualization::Svm) {
    const auto value = sources.read_msr(kMsrVmCr);
    if (!value) return Firmware::Unknown;
    const bool locked_off = (*value & kVmCrLock) != 0 && (*value & kVmCrSvmDisable) != 0;
    return locked_off ? Firmware::Disables : Firmware::Allows;
  }
  return Firmware::Unknown;
}

// Kernels since 5.6 (VT-x) and 6.7 (SVM) also clear the flag in /proc/cpuinfo, so the log is asked whether the flag is there or not.
Firmware firmware_by_log(const Sources& sources) {
  const auto text = sources.kernel_log();
  if (!text) return Firmware::Unknown;
  for (const char* refusal :
       {"VMX (outside TXT) disabled by BIOS", "VMX disabled by BIOS", "SVM disabled (by BIOS)", "kvm: disabled by bios"}) {
    if (text->find(refusal) != std::string::npos) return Firmware::Disables;
  }
  return Firmware::Unknown;
}

}  // namespace

Virtualization Processor::family() const {
  if (vmx) return Virtualization::Vmx;
  if (svm) return Virtualization::Svm;
  if (vendor == "GenuineIntel" || vendor == "CentaurHauls" || vendor == "  Shanghai  ") return Virtualization::Vmx;
  if (vendor == "AuthenticAMD" || vendor == "HygonGenuine") return Virtualization::Svm;
  return Virtualization::None;
}

Processor read_processor(const Sources& sources) {
  Processor processor;
  read_cpuinfo(read_text(sources, "proc/cpuinfo").value_or(""), processor);
  // Without the flag the register may not exist, or be a hypervisor's invention; only the log can tell.
  if (processor.vmx || processor.svm) processor.firmware = firmware_by_msr(sources, processor.family());
  if (processor.firmware == Firmware::Unknown) processor.firmware = firmware_by_log(sources);
  return processor;
}

const char* name_of(Virtualization family) {
  switch (family) {
    case Virtualization::Vmx: return "Intel VT-x (vmx)";
    case Virtualization::Svm: return "AMD-V (svm)";
    case Virtualization::None: break;
  }
  return "processor virtualization (vmx or svm)";
}

const char* module_of(Virtualization family) {
  switch (family) {
    case Virtualization::Vmx: return "kvm_intel";
    case Virtualization::Svm: return "kvm_amd";
    case Virtualization::None: break;
  }
  return "kvm_intel or kvm_amd";
}

}  // namespace lodge::host
