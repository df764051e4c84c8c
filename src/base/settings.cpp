#include "base/settings.hpp"

namespace lodge {

std::vector<Setting> split_settings(std::string_view text) {
  std::vector<Setting> settings;
  if (text.empty()) return settings;
  std::string part;
  const auto end_part = [&] {
    const size_t equals = part.find('=');
    if (equals == std::string::npos)
      settings.push_back({"", std::move(part)});
    else
      settings.push_back({part.substr(0, equals), part.substr(equals + 1)});
    part.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      part += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      part += text[i++];
    } else {
      end_part();
    }
  }
  end_part();
  return settings;
}

Result<bool> parse_switch(std::string_view text) {
  if (text == "on" || text == "yes") return true;
  if (text == "off" || text == "no") return false;
  return fail(ErrorKind::Usage, "'{}' is neither on nor off", text);
}

}  // namespace lodge
