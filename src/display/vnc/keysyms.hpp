// Which key a viewer means by a keysym (X11's <X11/keysymdef.h>; RFC 6143, 7.5.4).
#pragma once

#include <cstdint>
#include <optional>

#include "display/keys.hpp"

namespace lodge::display::vnc {

// Characters are looked up in the layout; the viewer itself sends the shifts that its person holds.
[[nodiscard]] std::optional<Key> key_of_keysym(uint32_t keysym, const Layout& layout);

}  // namespace lodge::display::vnc
