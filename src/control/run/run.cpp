#include "control/run/run.hpp"

#include "base/log.hpp"
#include "control/run/options.hpp"
#include "engine/select/select.hpp"
#include "engine/soft/soft.hpp"
#include "machine/life_cycle.hpp"
#include "machine/process_title.hpp"

namespace lodge::control {

namespace {

int report(const Error& error) {
  log::error("{}", error.message);
  return static_cast<int>(machine::exit_code_of(error));
}

Result<std::unique_ptr<engine::System>> open_engine(const machine::Config& config) {
  engine::soft::Options soft{.virtual_clock = config.virtual_clock, .second_tier = config.soft_tier == 2};
  soft.jitdump = config.jitdump;
  soft.profile = config.profile;
  soft.state_trace = config.state_trace;
  soft.state_trace_every = config.state_trace_every;
  soft.state_trace_from = config.state_trace_from;
  if (config.code_cache) soft.code_cache_size = config.code_cache;
  // A virtual clock and a profile are Lodge's own engine's; auto must not take the other one.
  return engine::select::open_system(config.virtual_clock || !config.profile.empty() || !config.jitdump.empty() ? "soft" : config.engine,
                                     soft);
}

}  // namespace

int run_run(int argc, char** argv, std::span<const std::string> arguments) {
  const auto config = parse_run_options(arguments);
  if (!config) return report(config.error());
  machine::set_process_title(argc, argv, config->name);
  const auto code = machine::run(*config, [&] { return open_engine(*config); });
  return code ? static_cast<int>(*code) : report(code.error());
}

}  // namespace lodge::control
