#include "display/keys.hpp"

#include <linux/input-event-codes.h>

#include <algorithm>
#include <array>
#include <span>

namespace lodge::display {

namespace {

struct Named {
  std::string_view name;
  Key key;
};

constexpr auto kNames = std::to_array<Named>({
    {"0", KEY_0},
    {"1", KEY_1},
    {"2", KEY_2},
    {"3", KEY_3},
    {"4", KEY_4},
    {"5", KEY_5},
    {"6", KEY_6},
    {"7", KEY_7},
    {"8", KEY_8},
    {"9", KEY_9},
    {"a", KEY_A},
    {"b", KEY_B},
    {"c", KEY_C},
    {"d", KEY_D},
    {"e", KEY_E},
    {"f", KEY_F},
    {"g", KEY_G},
    {"h", KEY_H},
    {"i", KEY_I},
    {"j", KEY_J},
    {"k", KEY_K},
    {"l", KEY_L},
    {"m", KEY_M},
    {"n", KEY_N},
    {"o", KEY_O},
    {"p", KEY_P},
    {"q", KEY_Q},
    {"r", KEY_R},
    {"s", KEY_S},
    {"t", KEY_T},
    {"u", KEY_U},
    {"v", KEY_V},
    {"w", KEY_W},
    {"x", KEY_X},
    {"y", KEY_Y},
    {"z", KEY_Z},
    {"f1", KEY_F1},
    {"f2", KEY_F2},
    {"f3", KEY_F3},
    {"f4", KEY_F4},
    {"f5", KEY_F5},
    {"f6", KEY_F6},
    {"f7", KEY_F7},
    {"f8", KEY_F8},
    {"f9", KEY_F9},
    {"f10", KEY_F10},
    {"f11", KEY_F11},
    {"f12", KEY_F12},
    {"esc", KEY_ESC},
    {"tab", KEY_TAB},
    {"caps_lock", KEY_CAPSLOCK},
    {"ret", KEY_ENTER},
    {"backspace", KEY_BACKSPACE},
    {"spc", KEY_SPACE},
    {"minus", KEY_MINUS},
    {"equal", KEY_EQUAL},
    {"bracket_left", KEY_LEFTBRACE},
    {"bracket_right", KEY_RIGHTBRACE},
    {"semicolon", KEY_SEMICOLON},
    {"apostrophe", KEY_APOSTROPHE},
    {"grave_accent", KEY_GRAVE},
    {"backslash", KEY_BACKSLASH},
    {"comma", KEY_COMMA},
    {"dot", KEY_DOT},
    {"slash", KEY_SLASH},
    {"less", KEY_102ND},
    {"shift", KEY_LEFTSHIFT},
    {"shift_r", KEY_RIGHTSHIFT},
    {"ctrl", KEY_LEFTCTRL},
    {"ctrl_r", KEY_RIGHTCTRL},
    {"alt", KEY_LEFTALT},
    {"alt_r", KEY_RIGHTALT},
    {"meta_l", KEY_LEFTMETA},
    {"meta_r", KEY_RIGHTMETA},
    {"compose", KEY_COMPOSE},
    {"menu", KEY_COMPOSE},
    {"insert", KEY_INSERT},
    {"delete", KEY_DELETE},
    {"home", KEY_HOME},
    {"end", KEY_END},
    {"pgup", KEY_PAGEUP},
    {"pgdn", KEY_PAGEDOWN},
    {"up", KEY_UP},
    {"down", KEY_DOWN},
    {"left", KEY_LEFT},
    {"right", KEY_RIGHT},
    {"num_lock", KEY_NUMLOCK},
    {"scroll_lock", KEY_SCROLLLOCK},
    {"print", KEY_SYSRQ},
    {"sysrq", KEY_SYSRQ},
    {"pause", KEY_PAUSE},
    {"kp_0", KEY_KP0},
    {"kp_1", KEY_KP1},
    {"kp_2", KEY_KP2},
    {"kp_3", KEY_KP3},
    {"kp_4", KEY_KP4},
    {"kp_5", KEY_KP5},
    {"kp_6", KEY_KP6},
    {"kp_7", KEY_KP7},
    {"kp_8", KEY_KP8},
    {"kp_9", KEY_KP9},
    {"kp_add", KEY_KPPLUS},
    {"kp_subtract", KEY_KPMINUS},
    {"kp_multiply", KEY_KPASTERISK},
    {"asterisk", KEY_KPASTERISK},
    {"kp_divide", KEY_KPSLASH},
    {"kp_decimal", KEY_KPDOT},
    {"kp_enter", KEY_KPENTER},
    {"power", KEY_POWER},
    {"sleep", KEY_SLEEP},
    {"wake", KEY_WAKEUP},
    {"audiomute", KEY_MUTE},
    {"volumedown", KEY_VOLUMEDOWN},
    {"volumeup", KEY_VOLUMEUP},
    // What people say.
    {"enter", KEY_ENTER},
    {"return", KEY_ENTER},
    {"escape", KEY_ESC},
    {"space", KEY_SPACE},
    {"del", KEY_DELETE},
    {"ins", KEY_INSERT},
    {"pageup", KEY_PAGEUP},
    {"pagedown", KEY_PAGEDOWN},
    {"altgr", KEY_RIGHTALT},
    {"win", KEY_LEFTMETA},
    {"super", KEY_LEFTMETA},
});

// Linux numbers the keys of the old keyboard by set 1: up to F12, without holes but these.
constexpr bool plain(unsigned code) { return code >= KEY_ESC && code <= KEY_F12 && code != 84 && code != KEY_ZENKAKUHANKAKU; }

struct Extended {
  Key key;
  uint8_t code;
};
constexpr auto kExtendedKeys = std::to_array<Extended>({
    {KEY_KPENTER, 0x1c},      {KEY_RIGHTCTRL, 0x1d}, {KEY_KPSLASH, 0x35},    {KEY_SYSRQ, 0x37},    {KEY_RIGHTALT, 0x38},
    {KEY_HOME, 0x47},         {KEY_UP, 0x48},        {KEY_PAGEUP, 0x49},     {KEY_LEFT, 0x4b},     {KEY_RIGHT, 0x4d},
    {KEY_END, 0x4f},          {KEY_DOWN, 0x50},      {KEY_PAGEDOWN, 0x51},   {KEY_INSERT, 0x52},   {KEY_DELETE, 0x53},
    {KEY_LEFTMETA, 0x5b},     {KEY_RIGHTMETA, 0x5c}, {KEY_COMPOSE, 0x5d},    {KEY_POWER, 0x5e},    {KEY_SLEEP, 0x5f},
    {KEY_WAKEUP, 0x63},       {KEY_MUTE, 0x20},      {KEY_VOLUMEDOWN, 0x2e}, {KEY_VOLUMEUP, 0x30}, {KEY_NEXTSONG, 0x19},
    {KEY_PREVIOUSSONG, 0x10}, {KEY_PLAYPAUSE, 0x22},
});

// --- Layouts: what is printed on each key, in the rows of the keyboard.

using Position = Layout::Position;

constexpr auto kUs = std::to_array<Position>({
    {KEY_GRAVE, U'`', U'~', 0},       {KEY_1, U'1', U'!', 0},          {KEY_2, U'2', U'@', 0},     {KEY_3, U'3', U'#', 0},
    {KEY_4, U'4', U'$', 0},           {KEY_5, U'5', U'%', 0},          {KEY_6, U'6', U'^', 0},     {KEY_7, U'7', U'&', 0},
    {KEY_8, U'8', U'*', 0},           {KEY_9, U'9', U'(', 0},          {KEY_0, U'0', U')', 0},     {KEY_MINUS, U'-', U'_', 0},
    {KEY_EQUAL, U'=', U'+', 0},       {KEY_Q, U'q', U'Q', 0},          {KEY_W, U'w', U'W', 0},     {KEY_E, U'e', U'E', 0},
    {KEY_R, U'r', U'R', 0},           {KEY_T, U't', U'T', 0},          {KEY_Y, U'y', U'Y', 0},     {KEY_U, U'u', U'U', 0},
    {KEY_I, U'i', U'I', 0},           {KEY_O, U'o', U'O', 0},          {KEY_P, U'p', U'P', 0},     {KEY_LEFTBRACE, U'[', U'{', 0},
    {KEY_RIGHTBRACE, U']', U'}', 0},  {KEY_BACKSLASH, U'\\', U'|', 0}, {KEY_A, U'a', U'A', 0},     {KEY_S, U's', U'S', 0},
    {KEY_D, U'd', U'D', 0},           {KEY_F, U'f', U'F', 0},          {KEY_G, U'g', U'G', 0},     {KEY_H, U'h', U'H', 0},
    {KEY_J, U'j', U'J', 0},           {KEY_K, U'k', U'K', 0},          {KEY_L, U'l', U'L', 0},     {KEY_SEMICOLON, U';', U':', 0},
    {KEY_APOSTROPHE, U'\'', U'"', 0}, {KEY_Z, U'z', U'Z', 0},          {KEY_X, U'x', U'X', 0},     {KEY_C, U'c', U'C', 0},
    {KEY_V, U'v', U'V', 0},           {KEY_B, U'b', U'B', 0},          {KEY_N, U'n', U'N', 0},     {KEY_M, U'm', U'M', 0},
    {KEY_COMMA, U',', U'<', 0},       {KEY_DOT, U'.', U'>', 0},        {KEY_SLASH, U'/', U'?', 0},
});

constexpr auto kDe = std::to_array<Position>({
    {KEY_GRAVE, 0, U'°', 0},       {KEY_1, U'1', U'!', 0},         {KEY_2, U'2', U'"', U'²'},       {KEY_3, U'3', U'§', U'³'},
    {KEY_4, U'4', U'$', 0},        {KEY_5, U'5', U'%', 0},         {KEY_6, U'6', U'&', 0},          {KEY_7, U'7', U'/', U'{'},
    {KEY_8, U'8', U'(', U'['},     {KEY_9, U'9', U')', U']'},      {KEY_0, U'0', U'=', U'}'},       {KEY_MINUS, U'ß', U'?', U'\\'},
    {KEY_Q, U'q', U'Q', U'@'},     {KEY_W, U'w', U'W', 0},         {KEY_E, U'e', U'E', U'€'},       {KEY_R, U'r', U'R', 0},
    {KEY_T, U't', U'T', 0},        {KEY_Y, U'z', U'Z', 0},         {KEY_U, U'u', U'U', 0},          {KEY_I, U'i', U'I', 0},
    {KEY_O, U'o', U'O', 0},        {KEY_P, U'p', U'P', 0},         {KEY_LEFTBRACE, U'ü', U'Ü', 0},  {KEY_RIGHTBRACE, U'+', U'*', U'~'},
    {KEY_A, U'a', U'A', 0},        {KEY_S, U's', U'S', 0},         {KEY_D, U'd', U'D', 0},          {KEY_F, U'f', U'F', 0},
    {KEY_G, U'g', U'G', 0},        {KEY_H, U'h', U'H', 0},         {KEY_J, U'j', U'J', 0},          {KEY_K, U'k', U'K', 0},
    {KEY_L, U'l', U'L', 0},        {KEY_SEMICOLON, U'ö', U'Ö', 0}, {KEY_APOSTROPHE, U'ä', U'Ä', 0}, {KEY_BACKSLASH, U'#', U'\'', 0},
    {KEY_102ND, U'<', U'>', U'|'}, {KEY_Z, U'y', U'Y', 0},         {KEY_X, U'x', U'X', 0},          {KEY_C, U'c', U'C', 0},
    {KEY_V, U'v', U'V', 0},        {KEY_B, U'b', U'B', 0},         {KEY_N, U'n', U'N', 0},          {KEY_M, U'm', U'M', U'µ'},
    {KEY_COMMA, U',', U';', 0},    {KEY_DOT, U'.', U':', 0},       {KEY_SLASH, U'-', U'_', 0},
});

constexpr auto kFr = std::to_array<Position>({
    {KEY_GRAVE, U'²', 0, 0},       {KEY_1, U'&', U'1', 0},         {KEY_2, U'é', U'2', U'~'},       {KEY_3, U'"', U'3', U'#'},
    {KEY_4, U'\'', U'4', U'{'},    {KEY_5, U'(', U'5', U'['},      {KEY_6, U'-', U'6', U'|'},       {KEY_7, U'è', U'7', U'`'},
    {KEY_8, U'_', U'8', U'\\'},    {KEY_9, U'ç', U'9', U'^'},      {KEY_0, U'à', U'0', U'@'},       {KEY_MINUS, U')', U'°', U']'},
    {KEY_EQUAL, U'=', U'+', U'}'}, {KEY_Q, U'a', U'A', 0},         {KEY_W, U'z', U'Z', 0},          {KEY_E, U'e', U'E', U'€'},
    {KEY_R, U'r', U'R', 0},        {KEY_T, U't', U'T', 0},         {KEY_Y, U'y', U'Y', 0},          {KEY_U, U'u', U'U', 0},
    {KEY_I, U'i', U'I', 0},        {KEY_O, U'o', U'O', 0},         {KEY_P, U'p', U'P', 0},          {KEY_RIGHTBRACE, U'$', U'£', U'¤'},
    {KEY_A, U'q', U'Q', 0},        {KEY_S, U's', U'S', 0},         {KEY_D, U'd', U'D', 0},          {KEY_F, U'f', U'F', 0},
    {KEY_G, U'g', U'G', 0},        {KEY_H, U'h', U'H', 0},         {KEY_J, U'j', U'J', 0},          {KEY_K, U'k', U'K', 0},
    {KEY_L, U'l', U'L', 0},        {KEY_SEMICOLON, U'm', U'M', 0}, {KEY_APOSTROPHE, U'ù', U'%', 0}, {KEY_BACKSLASH, U'*', U'µ', 0},
    {KEY_102ND, U'<', U'>', 0},    {KEY_Z, U'w', U'W', 0},         {KEY_X, U'x', U'X', 0},          {KEY_C, U'c', U'C', 0},
    {KEY_V, U'v', U'V', 0},        {KEY_B, U'b', U'B', 0},         {KEY_N, U'n', U'N', 0},          {KEY_M, U',', U'?', 0},
    {KEY_COMMA, U';', U'.', 0},    {KEY_DOT, U':', U'/', 0},       {KEY_SLASH, U'!', U'§', 0},
});

constexpr std::array<Layout, 3> kLayouts{Layout("us", kUs.data(), kUs.size()), Layout("de", kDe.data(), kDe.size()),
                                         Layout("fr", kFr.data(), kFr.size())};

}  // namespace

std::optional<Key> key_named(std::string_view name) {
  const auto* const found = std::ranges::find(kNames, name, &Named::name);
  return found == kNames.end() ? std::nullopt : std::optional(found->key);
}

std::string_view name_of(Key key) {
  const auto* const found = std::ranges::find(kNames, key, &Named::key);
  return found == kNames.end() ? std::string_view() : found->name;
}

std::optional<ScanCode> scan_code_of(Key key) {
  if (plain(key)) return ScanCode{static_cast<uint8_t>(key), false};
  const auto* const found = std::ranges::find(kExtendedKeys, key, &Extended::key);
  return found == kExtendedKeys.end() ? std::nullopt : std::optional(ScanCode{found->code, true});
}

Key key_of(ScanCode code) {
  if (!code.extended) return plain(code.code) ? code.code : Key{0};
  const auto* const found = std::ranges::find(kExtendedKeys, code.code, &Extended::code);
  return found == kExtendedKeys.end() ? Key{0} : found->key;
}

std::optional<Key> key_of_scan_code(uint32_t number) {
  const bool extended = number < 0x100 ? (number & 0x80) != 0 : number >> 8 == 0xe0;
  if (number >= 0x100 && !extended) return std::nullopt;
  const Key key = key_of({static_cast<uint8_t>(number & 0x7f), extended});
  return key == 0 ? std::nullopt : std::optional(key);
}

Result<const Layout*> Layout::named(std::string_view name) {
  const auto* const found = std::ranges::find(kLayouts, name, &Layout::name);
  if (found == kLayouts.end()) return fail(ErrorKind::Usage, "unknown keyboard layout '{}': use us, de or fr", name);
  return found;
}

std::optional<Stroke> Layout::stroke_of(char32_t character) const {
  if (character == 0) return std::nullopt;  // stands for nothing in the tables
  switch (character) {
    case U' ': return Stroke{KEY_SPACE};
    case U'\n':
    case U'\r': return Stroke{KEY_ENTER};
    case U'\t': return Stroke{KEY_TAB};
    case U'\b': return Stroke{KEY_BACKSPACE};
    case U'\x1b': return Stroke{KEY_ESC};
    default: break;
  }
  for (const Position& position : std::span(first_, count_)) {
    if (position.plain == character) return Stroke{position.key};
    if (position.shifted == character) return Stroke{position.key, true, false};
    if (position.alt_gr == character) return Stroke{position.key, false, true};
  }
  return std::nullopt;
}

}  // namespace lodge::display
