// The life of a virtual machine process: files, console, engine, boots, and the exit code.
#pragma once

#include <functional>
#include <memory>

#include "base/error.hpp"
#include "engine/api/engine.hpp"
#include "machine/config.hpp"

namespace lodge::machine {

// docs/running.md
enum class ExitCode : int {
  PoweredOff = 0,    // the guest switched itself off, or reset itself with --no-reboot, or the user quit
  Failed = 1,        // Lodge or the engine failed
  BadInput = 2,      // bad usage or input
  GuestCrashed = 3,  // triple fault with --no-reboot, or stuck for good
};

using OpenEngine = std::function<Result<std::unique_ptr<engine::System>>()>;

// Everything from reading the files to the guest's end. The engine is opened only when the input is good. Main thread.
[[nodiscard]] Result<ExitCode> run(const Config& config, const OpenEngine& open_engine);

[[nodiscard]] ExitCode exit_code_of(const Error& error);

}  // namespace lodge::machine
