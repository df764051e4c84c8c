// Keys by name, by number and by what is printed on them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "display/input.hpp"

namespace lodge::display {

// --- By name: those of QMP's QKeyCode, and what people say instead of some ("enter", "del").
[[nodiscard]] std::optional<Key> key_named(std::string_view name);
[[nodiscard]] std::string_view name_of(Key key);  // empty: it has none

// --- By number: the code that the key of a PC's keyboard sends in scan code set 1, and whether 0xE0 comes before it.
struct ScanCode {
  uint8_t code;
  bool extended;
};
[[nodiscard]] std::optional<ScanCode> scan_code_of(Key key);  // nothing for keys that such a keyboard does not have
[[nodiscard]] Key key_of(ScanCode code);                      // 0: none
// As QMP and VNC number them: code, with 0x80 or 0xE000 added for 0xE0.
[[nodiscard]] std::optional<Key> key_of_scan_code(uint32_t number);

// --- By character: how a layout types it.
struct Stroke {
  Key key = 0;
  bool shift = false, alt_gr = false;
  bool operator==(const Stroke&) const = default;
};
class Layout {
 public:
  // "us", "de" or "fr". ErrorKind::Usage for others.
  static Result<const Layout*> named(std::string_view name);
  [[nodiscard]] std::optional<Stroke> stroke_of(char32_t character) const;

  struct Position {
    Key key;
    char32_t plain, shifted, alt_gr;  // 0: nothing
  };
  constexpr Layout(std::string_view name, const Position* first, size_t count) : name_(name), first_(first), count_(count) {}
  [[nodiscard]] constexpr std::string_view name() const { return name_; }

 private:
  std::string_view name_;
  const Position* first_;
  size_t count_;
};

}  // namespace lodge::display
