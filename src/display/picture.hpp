// What a screen shows, and what of it has changed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace lodge::display {

struct Rectangle {
  unsigned x = 0, y = 0, width = 0, height = 0;
  bool operator==(const Rectangle&) const = default;
};

// Rows from the top, without gaps. A pixel is 0x00RRGGBB.
struct Picture {
  unsigned width = 0, height = 0;
  std::vector<uint32_t> pixels;

  [[nodiscard]] bool has_size(unsigned w, unsigned h) const { return width == w && height == h; }
  void resize(unsigned w, unsigned h) {
    width = w;
    height = h;
    pixels.assign(size_t{w} * h, 0);
  }
  [[nodiscard]] std::span<uint32_t> row(unsigned y) { return std::span(pixels).subspan(size_t{y} * width, width); }
  [[nodiscard]] std::span<const uint32_t> row(unsigned y) const { return std::span(pixels).subspan(size_t{y} * width, width); }
};

// Changed parts of a picture: neighbouring rows are put together.
class Damage {
 public:
  void add_row(unsigned y, unsigned first, unsigned end) {
    if (!areas_.empty()) {
      Rectangle& last = areas_.back();
      if (last.y + last.height == y) {
        const unsigned right = std::max(last.x + last.width, end);
        last.x = std::min(last.x, first);
        last.width = right - last.x;
        ++last.height;
        return;
      }
    }
    areas_.push_back({first, y, end - first, 1});
  }
  void add(const Rectangle& area) { areas_.push_back(area); }
  [[nodiscard]] const std::vector<Rectangle>& areas() const { return areas_; }
  [[nodiscard]] bool empty() const { return areas_.empty(); }
  void clear() { areas_.clear(); }

 private:
  std::vector<Rectangle> areas_;
};

// Puts `fresh` into row y of the picture, and notes what that has changed. `fresh` has the picture's width.
inline void update_row(Picture& picture, unsigned y, std::span<const uint32_t> fresh, Damage& damage) {
  const std::span<uint32_t> row = picture.row(y);
  const auto first = std::ranges::mismatch(row, fresh).in1 - row.begin();
  if (first == static_cast<std::ptrdiff_t>(row.size())) return;
  auto end = static_cast<std::ptrdiff_t>(row.size());
  while (row[static_cast<size_t>(end - 1)] == fresh[static_cast<size_t>(end - 1)]) --end;
  std::copy(fresh.begin() + first, fresh.begin() + end, row.begin() + first);
  damage.add_row(y, static_cast<unsigned>(first), static_cast<unsigned>(end));
}

}  // namespace lodge::display
