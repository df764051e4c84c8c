#include "state.hpp"

#include <cstring>

#include "random.hpp"

namespace lodge::oracle {

const Image& pattern() {
  static const Image image = [] {
    Image i;
    Random random(0x1d8af066);
    for (size_t at = 0; at < i.size(); at += 8) {
      const uint64_t value = random.next();
      std::memcpy(&i[at], &value, 8);
    }
    std::memset(i.data(), kStop, 2 * kPage);
    return i;
  }();
  return image;
}

void normalise(Vectors& v) {
  constexpr uint64_t kX87 = 1, kSse = 2, kAvx = 4;
  if (!(v.xstate_bv & kX87)) {
    v.fcw = 0x37f;
    v.fsw = v.ftw = 0;
    v.fop = 0;
    v.fip = v.fdp = 0;
    std::memset(v.st, 0, sizeof v.st);
  }
  if (!(v.xstate_bv & kSse)) std::memset(v.xmm, 0, sizeof v.xmm);
  if (!(v.xstate_bv & kAvx)) std::memset(v.ymm_high, 0, sizeof v.ymm_high);
  for (auto& st : v.st) std::memset(st + 10, 0, 6);
  v.reserved0 = 0;
  v.mxcsr_mask = 0;
  std::memset(v.reserved1, 0, sizeof v.reserved1);
  v.xstate_bv = kX87 | kSse | kAvx;
  v.xcomp_bv = 0;
  std::memset(v.header, 0, sizeof v.header);
}

}  // namespace lodge::oracle
