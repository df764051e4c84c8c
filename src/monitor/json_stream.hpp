// Finds where one JSON value ends and the next begins in a stream of bytes, without understanding more of it than brackets and strings.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace lodge::monitor {

class JsonStream {
 public:
  void append(std::string_view bytes) { bytes_ += bytes; }
  [[nodiscard]] size_t waiting() const { return bytes_.size(); }
  // The next whole object or array; or a line that is none, so that its sender hears of it.
  [[nodiscard]] std::optional<std::string> next();
  // All that has not been taken, whatever it is.
  [[nodiscard]] std::string take_rest() { return std::exchange(bytes_, {}); }

 private:
  std::string bytes_;
};

}  // namespace lodge::monitor
