#include "control/remote/typing.hpp"

namespace lodge::control {

namespace {

// The next character of UTF-8 text; nothing where it is none.
std::optional<char32_t> take_character(std::string_view& text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const size_t length = first < 0x80 ? 1 : first >> 5 == 0x6 ? 2 : first >> 4 == 0xe ? 3 : first >> 3 == 0x1e ? 4 : 0;
  if (length == 0 || length > text.size()) return std::nullopt;
  char32_t value = length == 1 ? first : first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 2) return std::nullopt;
    value = value << 6 | (byte(i) & 0x3fU);
  }
  text.remove_prefix(length);
  return value;
}

}  // namespace

Result<std::vector<std::string>> parse_chord(std::string_view text) {
  std::vector<std::string> keys;
  while (true) {
    const size_t dash = text.find('-');
    const std::string_view name = text.substr(0, dash);
    if (!display::key_named(name))
      return fail(ErrorKind::Usage,
                  "there is no key '{}': keys have names such as a, f1, ret, esc, ctrl, alt, shift, delete; '-' joins them", name);
    keys.emplace_back(name);
    if (dash == std::string_view::npos) return keys;
    text.remove_prefix(dash + 1);
  }
}

Result<std::vector<std::vector<std::string>>> parse_text(std::string_view text, const display::Layout& layout) {
  std::vector<std::vector<std::string>> strokes;
  while (!text.empty()) {
    const size_t at = text.size();
    const auto character = take_character(text);
    if (!character) return fail(ErrorKind::Usage, "the text is not UTF-8, {} bytes before its end", at);
    const auto stroke = layout.stroke_of(*character);
    if (!stroke)
      return fail(ErrorKind::Usage, "the layout {} has no key for the character U+{:04X}", layout.name(),
                  static_cast<uint32_t>(*character));
    std::vector<std::string> keys;
    if (stroke->shift) keys.emplace_back("shift");
    if (stroke->alt_gr) keys.emplace_back("alt_r");
    keys.emplace_back(display::name_of(stroke->key));
    strokes.push_back(std::move(keys));
  }
  return strokes;
}

}  // namespace lodge::control
