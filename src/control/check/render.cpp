#include <nlohmann/json.hpp>

#include "control/check/report.hpp"

namespace lodge::control {
namespace {

using nlohmann::ordered_json;

const char* mark(Verdict verdict) {
  switch (verdict) {
    case Verdict::Good: return "  ok  ";
    case Verdict::Note: return " note ";
    case Verdict::Bad: return "  NO  ";
  }
  return "";
}

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::Good: return "good";
    case Verdict::Note: return "note";
    case Verdict::Bad: return "bad";
  }
  return "";
}

std::string line_text(const Line& line) {
  std::string text = fmt::format("[{}] {}\n", mark(line.verdict), line.fact);
  if (!line.advice.empty()) text += fmt::format("         -> {}\n", line.advice);
  return text;
}

std::string choice_text(const engine::select::Choice& choice) {
  if (choice.engine == "kvm") return fmt::format("`--engine auto` takes kvm, the kernel's KVM: {}.\n", choice.why);
  if (choice.engine == "soft") return fmt::format("`--engine auto` takes soft, Lodge's own engine: {}.\n", choice.why);
  return fmt::format("No engine works here: {}.\n", choice.why);
}

ordered_json sections_json(const Report& report) {
  ordered_json sections = ordered_json::array();
  for (const Section& section : report.sections) {
    ordered_json lines = ordered_json::array();
    for (const Line& line : section.lines)
      lines.push_back({{"id", line.id}, {"verdict", word(line.verdict)}, {"fact", line.fact}, {"advice", line.advice}});
    sections.push_back({{"title", section.title}, {"checks", lines}});
  }
  return sections;
}

const char* firmware_word(host::Firmware firmware) {
  switch (firmware) {
    case host::Firmware::Unknown: return "unknown";
    case host::Firmware::Allows: return "allows";
    case host::Firmware::Disables: return "disables";
  }
  return "";
}

ordered_json facts_json(const host::Facts& facts, const engine::select::Proof& proof) {
  const auto& [processor, modules, kvm, surroundings, resources] = facts;
  return {
      {"processor",
       {{"vendor", processor.vendor},
        {"model", processor.model},
        {"count", processor.count},
        {"vmx", processor.vmx},
        {"svm", processor.svm},
        {"firmware", firmware_word(processor.firmware)}}},
      {"kernel_release", modules.kernel_release},
      {"modules",
       {{"kvm", name_of(modules.kvm)},
        {"kvm_intel", name_of(modules.kvm_intel)},
        {"kvm_amd", name_of(modules.kvm_amd)},
        {"kvm_pvm", name_of(modules.kvm_pvm)}}},
      {"kvm_device",
       {{"present", kvm.present},
        {"opens", kvm.answer.open_errno == 0},
        {"errno", kvm.answer.open_errno},
        {"api_version", kvm.answer.api_version},
        {"capabilities", kvm.answer.capabilities}}},
      {"proof", {{"works", proof.works}, {"reason", proof.reason}, {"milliseconds", proof.milliseconds}}},
      {"hypervisor", surroundings.hypervisor},
      {"machine", surroundings.machine},
      {"container", surroundings.container},
      {"memory_bytes", resources.memory_total},
      {"memory_available_bytes", resources.memory_available},
      {"hugepages",
       {{"size_bytes", resources.hugepage_size},
        {"total", resources.hugepages_total},
        {"free", resources.hugepages_free},
        {"transparent", resources.transparent_hugepages}}},
      {"io_uring", resources.io_uring == 0},
      {"userfaultfd", resources.userfaultfd == 0},
      {"tun", resources.tun == 0},
      {"executable_memfd", resources.executable_memfd == 0},
      {"avx", resources.avx},
      {"user_fsgsbase", resources.user_fsgsbase},
  };
}

}  // namespace

std::string to_text(const Report& report) {
  std::string text;
  for (const Section& section : report.sections) {
    text += section.title + "\n";
    for (const Line& line : section.lines) text += line_text(line);
    text += "\n";
  }
  return text + choice_text(report.choice);
}

std::string to_json(const Report& report, const host::Facts& facts, const engine::select::Proof& proof) {
  const ordered_json document = {
      {"works", !report.choice.engine.empty()}, {"engine", report.choice.engine},    {"why", report.choice.why},
      {"sections", sections_json(report)},      {"facts", facts_json(facts, proof)},
  };
  // What a file of the host says need not be UTF-8: replace what is not, rather than throw.
  return document.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace lodge::control
