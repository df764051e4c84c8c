// Tables of what the settings of an option are: their names, their help, and what each does to the configuration.
#pragma once

#include <algorithm>
#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/settings.hpp"

namespace lodge::control {

template <typename Target>
struct SettingRow {
  std::string_view name, values, help;
  Result<> (*apply)(Target& target, std::string_view value);
  bool repeatable = false;
};

// ErrorKind::Usage names the setting that is wrong, and what would be right. `example` is one that is as it should be.
template <typename Target>
Result<> apply_settings(std::span<const SettingRow<Target>> rows, std::span<const Setting> settings, Target& target,
                        std::string_view example) {
  std::vector<std::string> seen;
  for (const Setting& setting : settings) {
    if (setting.name.empty())
      return fail(ErrorKind::Usage, "'{}' is not a setting: give {} and others with '=' (a comma in a value is written twice)",
                  setting.value, example);
    const auto known = std::ranges::find(rows, setting.name, &SettingRow<Target>::name);
    if (known == rows.end()) {
      std::string names;
      for (const SettingRow<Target>& other : rows) names += fmt::format("{}{}", names.empty() ? "" : ", ", other.name);
      return fail(ErrorKind::Usage, "there is no setting '{}': there are {}", setting.name, names);
    }
    if (!known->repeatable && std::ranges::find(seen, setting.name) != seen.end())
      return fail(ErrorKind::Usage, "{} is given twice", setting.name);
    seen.push_back(setting.name);
    if (const auto applied = known->apply(target, setting.value); !applied)
      return fail(ErrorKind::Usage, "{}={}: {}", setting.name, setting.value, applied.error().message);
  }
  return {};
}

template <typename Target>
std::string settings_help(std::span<const SettingRow<Target>> rows) {
  std::string text;
  for (const SettingRow<Target>& row : rows) text += fmt::format("  {}={}\n      {}\n", row.name, row.values, row.help);
  return text;
}

inline Result<> set_switch(bool& field, std::string_view value) {
  field = TRY(parse_switch(value));
  return {};
}

inline Result<uint16_t> parse_count(std::string_view value, uint16_t most) {
  uint16_t count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (error != std::errc() || end != value.data() + value.size() || count == 0 || count > most)
    return fail(ErrorKind::Usage, "'{}' is not a number from 1 to {}", value, most);
  return count;
}

}  // namespace lodge::control
