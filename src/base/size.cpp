#include "base/size.hpp"

#include <charconv>
#include <cmath>

namespace lodge {

namespace {
constexpr std::string_view kUnits = "KMGTPE";
}

Result<uint64_t> parse_bytes(std::string_view text) {
  const auto wrong = [&] { return fail(ErrorKind::Usage, "'{}' is not a size: give bytes, or a number with k, M, G, T, P or E", text); };
  std::string_view rest = text;
  uint64_t whole = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), whole);
  if (error == std::errc::result_out_of_range) return fail(ErrorKind::Usage, "'{}' is too large a size", text);
  if (error != std::errc()) return wrong();
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  double fraction = 0;
  if (rest.starts_with('.')) {
    double place = 0.1;
    for (rest.remove_prefix(1); !rest.empty() && rest[0] >= '0' && rest[0] <= '9'; rest.remove_prefix(1), place /= 10)
      fraction += place * (rest[0] - '0');
  }
  unsigned power = 0;
  if (!rest.empty()) {
    const size_t unit = kUnits.find(static_cast<char>(rest[0] & ~0x20));
    if (unit != std::string_view::npos) {
      power = static_cast<unsigned>(unit + 1);
      rest.remove_prefix(1);
      if (rest.starts_with('i')) rest.remove_prefix(1);
    }
    if (rest == "B" || rest == "b") rest = {};
  }
  if (!rest.empty()) return wrong();
  const uint64_t scale = uint64_t{1} << (10 * power);
  if (fraction > 0 && power == 0) return fail(ErrorKind::Usage, "'{}' is not a size: there are no parts of bytes", text);
  const auto more = static_cast<uint64_t>(std::llround(fraction * static_cast<double>(scale)));
  if (whole > (UINT64_MAX - more) / scale) return fail(ErrorKind::Usage, "'{}' is too large a size", text);
  return whole * scale + more;
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.3g} {}iB", value, kUnits[unit]);
}

}  // namespace lodge
