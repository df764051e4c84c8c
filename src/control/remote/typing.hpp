// What "lodge key" and "lodge type" are given, as keys.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "display/keys.hpp"

namespace lodge::control {

// "ctrl-alt-delete": names of keys that are pressed together. Their names in QMP.
[[nodiscard]] Result<std::vector<std::string>> parse_chord(std::string_view text);

// Text in UTF-8 as the strokes that type it, each as the names of the keys pressed together. ErrorKind::Usage: which character the layout
// does not have.
[[nodiscard]] Result<std::vector<std::vector<std::string>>> parse_text(std::string_view text, const display::Layout& layout);

}  // namespace lodge::control
