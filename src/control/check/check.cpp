#include "control/check/check.hpp"

#include <cstdio>

#include "control/check/report.hpp"

namespace lodge::control {

int run_check(const CheckOptions& options) {
  const host::Facts facts = host::gather(host::system_sources());
  const engine::select::Proof& proof = engine::select::proof_of_kvm();
  const Report report = judge(facts, proof, engine::select::choose_auto());
  const std::string text = options.json ? to_json(report, facts, proof) : to_text(report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return report.choice.engine.empty() ? 1 : 0;
}

}  // namespace lodge::control
