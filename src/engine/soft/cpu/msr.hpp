// Model-specific registers: power-on values and the list of those that belong to a saved state.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// KVM_GET_MSR_INDEX_LIST: what save and restore must carry.
extern const uint32_t kMsrIndexList[];
extern const uint32_t kMsrIndexCount;

// Variable-range MTRRs (MTRRcap.VCNT) and machine-check banks (MCG_CAP.Count).
constexpr uint32_t kMtrrVariableCount = 8;
constexpr uint32_t kMcBanks = 10;

void reset_msrs(CpuState& c);

}  // namespace lodge::engine::soft
