// The kernel's engine behind the boundary of engine/api: /dev/kvm through its ioctls.
#pragma once

#include <memory>
#include <string>

#include "base/error.hpp"
#include "engine/api/engine.hpp"

namespace lodge::engine::kvm {

// Opens the device. NotFound, Permission or Unsupported (API version, missing capability) with a message
// that says what to do.
[[nodiscard]] Result<std::unique_ptr<System>> create_system(const std::string& device = "/dev/kvm");

}  // namespace lodge::engine::kvm
