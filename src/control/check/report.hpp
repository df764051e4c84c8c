// What `lodge check` says: judged from the facts without touching the host, and rendered for a person or a program.
#pragma once

#include <string>
#include <vector>

#include "engine/select/select.hpp"
#include "host/facts.hpp"

namespace lodge::control {

enum class Verdict {
  Good,
  Note,  // works, or is not needed, yet worth knowing
  Bad,   // stands in the way of the engine that its section is about
};

struct Line {
  std::string id;  // stable name for programs, such as "kvm.device"
  Verdict verdict = Verdict::Good;
  std::string fact;    // one sentence
  std::string advice;  // what to do, where something can be done
};

struct Section {
  std::string title;
  std::vector<Line> lines;
};

struct Report {
  std::vector<Section> sections;
  engine::select::Choice choice;
};

[[nodiscard]] Report judge(const host::Facts& facts, const engine::select::Proof& proof, const engine::select::Choice& choice);

[[nodiscard]] std::string to_text(const Report& report);
[[nodiscard]] std::string to_json(const Report& report, const host::Facts& facts, const engine::select::Proof& proof);

}  // namespace lodge::control
