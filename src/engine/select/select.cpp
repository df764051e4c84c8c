#include "engine/select/select.hpp"

#include "engine/kvm/kvm.hpp"

namespace lodge::engine::select {

const Proof& proof_of_kvm() {
  static const Proof proof = prove_kvm();
  return proof;
}

Choice choose_auto() {
  const Proof& proof = proof_of_kvm();
  if (proof.works) return {"kvm", proof.reason};
  if (const auto system = soft::create_system(); !system)
    return {"", fmt::format("{}; and Lodge's own engine does not run here: {}", proof.reason, system.error().message)};
  return {"soft", proof.reason};
}

Result<std::unique_ptr<System>> open_system(std::string_view name, const soft::Options& soft) {
  std::string engine(name);
  if (name == "auto") {
    const Choice choice = choose_auto();
    if (choice.engine.empty()) return fail(ErrorKind::Unsupported, "no engine works: {}", choice.why);
    engine = choice.engine;
  }
  if (engine == "soft") return soft::create_system(soft);
  if (engine == "kvm") {
    auto system = kvm::create_system();
    if (!system) return system;
    if (const Proof& proof = proof_of_kvm(); !proof.works)
      return fail(ErrorKind::Unsupported, "--engine kvm does not work here: {}: use --engine soft", proof.reason);
    return system;
  }
  return fail(ErrorKind::Usage, "unknown engine '{}': auto, kvm or soft", name);
}

}  // namespace lodge::engine::select
