#include "display/vnc/keysyms.hpp"

#include <linux/input-event-codes.h>

#include <algorithm>
#include <array>

namespace lodge::display::vnc {

namespace {

struct Entry {
  uint32_t keysym;
  Key key;
};

// Keys without a character; runs of them (function keys, keypad) are below.
constexpr auto kNamed = std::to_array<Entry>({
    {0xff08, KEY_BACKSPACE},
    {0xff09, KEY_TAB},
    {0xff0d, KEY_ENTER},
    {0xff13, KEY_PAUSE},
    {0xff14, KEY_SCROLLLOCK},
    {0xff15, KEY_SYSRQ},
    {0xff1b, KEY_ESC},
    {0xff50, KEY_HOME},
    {0xff51, KEY_LEFT},
    {0xff52, KEY_UP},
    {0xff53, KEY_RIGHT},
    {0xff54, KEY_DOWN},
    {0xff55, KEY_PAGEUP},
    {0xff56, KEY_PAGEDOWN},
    {0xff57, KEY_END},
    {0xff61, KEY_SYSRQ},
    {0xff63, KEY_INSERT},
    {0xff67, KEY_COMPOSE},
    {0xff6b, KEY_PAUSE},
    {0xff7f, KEY_NUMLOCK},
    {0xff7e, KEY_RIGHTALT},  // Mode_switch
    {0xff8d, KEY_KPENTER},
    {0xff95, KEY_KP7},
    {0xff96, KEY_KP4},
    {0xff97, KEY_KP8},
    {0xff98, KEY_KP6},
    {0xff99, KEY_KP2},
    {0xff9a, KEY_KP9},
    {0xff9b, KEY_KP3},
    {0xff9c, KEY_KP1},
    {0xff9d, KEY_KP5},
    {0xff9e, KEY_KP0},
    {0xff9f, KEY_KPDOT},
    {0xffaa, KEY_KPASTERISK},
    {0xffab, KEY_KPPLUS},
    {0xffac, KEY_KPDOT},
    {0xffad, KEY_KPMINUS},
    {0xffae, KEY_KPDOT},
    {0xffaf, KEY_KPSLASH},
    {0xffb0, KEY_KP0},
    {0xffb1, KEY_KP1},
    {0xffb2, KEY_KP2},
    {0xffb3, KEY_KP3},
    {0xffb4, KEY_KP4},
    {0xffb5, KEY_KP5},
    {0xffb6, KEY_KP6},
    {0xffb7, KEY_KP7},
    {0xffb8, KEY_KP8},
    {0xffb9, KEY_KP9},
    {0xffc8, KEY_F11},
    {0xffc9, KEY_F12},
    {0xffe1, KEY_LEFTSHIFT},
    {0xffe2, KEY_RIGHTSHIFT},
    {0xffe3, KEY_LEFTCTRL},
    {0xffe4, KEY_RIGHTCTRL},
    {0xffe5, KEY_CAPSLOCK},
    {0xffe7, KEY_LEFTMETA},
    {0xffe8, KEY_RIGHTMETA},
    {0xffe9, KEY_LEFTALT},
    {0xffea, KEY_RIGHTALT},
    {0xffeb, KEY_LEFTMETA},
    {0xffec, KEY_RIGHTMETA},
    {0xffff, KEY_DELETE},
    {0xfe03, KEY_RIGHTALT},
    {0xfe20, KEY_TAB},
    // Dead keys by the key that has them on German and French keyboards.
    {0xfe51, KEY_EQUAL},
    {0xfe50, KEY_EQUAL},
});

}  // namespace

std::optional<Key> key_of_keysym(uint32_t keysym, const Layout& layout) {
  constexpr uint32_t kF1 = 0xffbe, kF10 = 0xffc7, kUnicode = 0x01000000, kLatin1End = 0x100, kEuro = 0x20ac;
  if (keysym >= kF1 && keysym <= kF10) return static_cast<Key>(KEY_F1 + (keysym - kF1));
  if (const auto* const found = std::ranges::find(kNamed, keysym, &Entry::keysym); found != kNamed.end()) return found->key;
  if (keysym == 0xfe52) return layout.name() == "fr" ? KEY_LEFTBRACE : KEY_GRAVE;  // the dead circumflex
  char32_t character = 0;
  if (keysym < kLatin1End || keysym == kEuro)
    character = keysym;
  else if (keysym >= kUnicode && keysym < kUnicode + 0x110000)
    character = keysym - kUnicode;
  const auto stroke = layout.stroke_of(character);
  return stroke ? std::optional(stroke->key) : std::nullopt;
}

}  // namespace lodge::display::vnc
