// All facts about the host that decide whether and how well it runs guests. No judgement: see control/check.
#pragma once

#include "host/kvm_device.hpp"
#include "host/modules.hpp"
#include "host/processor.hpp"
#include "host/resources.hpp"
#include "host/sources.hpp"
#include "host/surroundings.hpp"

namespace lodge::host {

struct Facts {
  Processor processor;
  Modules modules;
  KvmDevice kvm;
  Surroundings surroundings;
  Resources resources;
};

// Never fails: what cannot be read is absent or Unknown. Takes some milliseconds. Threads: any.
[[nodiscard]] Facts gather(const Sources& sources);

}  // namespace lodge::host
