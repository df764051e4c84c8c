#include "monitor/json_stream.hpp"

namespace lodge::monitor {

std::optional<std::string> JsonStream::next() {
  const size_t begin = bytes_.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) {
    bytes_.clear();
    return std::nullopt;
  }
  const auto take = [&](size_t end) {
    std::string value = bytes_.substr(begin, end - begin);
    bytes_.erase(0, end);
    return value;
  };
  if (bytes_[begin] != '{' && bytes_[begin] != '[') {
    const size_t end = bytes_.find('\n', begin);
    return end == std::string::npos ? std::nullopt : std::optional(take(end));
  }
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = begin; i < bytes_.size(); ++i) {
    const char c = bytes_[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return take(i + 1);
    }
  }
  return std::nullopt;
}

}  // namespace lodge::monitor
