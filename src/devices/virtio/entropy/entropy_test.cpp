#include "devices/virtio/entropy/entropy.hpp"

#include <gtest/gtest.h>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

TEST(Entropy, FillsBuffersWithRandomBytes) {
  test::Driven driven;
  Entropy entropy(driven.worker);
  EXPECT_EQ(entropy.features(), 0u);
  driven.start(entropy, 0, {0});
  auto& ring = driven.ring(0);
  ring.add({{0x800000, 3000, true}, {0x900000, 5000, true}});
  ring.add({{0xa00000, 3000, true}});
  ring.add({{0xb00000, 200000, true}});
  ring.add({{0xc00000, 16}});
  entropy.notified();
  const auto used = ring.used();
  ASSERT_EQ(used.size(), 4u);
  EXPECT_EQ(used[0].length, 8000u);
  EXPECT_EQ(used[1].length, 3000u);
  EXPECT_EQ(used[2].length, 65536u) << "5.4.6: as much as it likes";
  EXPECT_EQ(used[3].length, 0u) << "no room for any";
  EXPECT_EQ(driven.port.interrupts[0], 1u) << "one for all";
  EXPECT_NE(driven.memory.text(0x800000, 3000), driven.memory.text(0xa00000, 3000));
  for (const uint64_t at : {0x800000, 0x900000, 0xa00000, 0xb00000}) {
    const std::string bytes = driven.memory.text(at, 3000);
    // 3000 bytes of one value in 256: 12 on the average, and never as many as 60.
    EXPECT_LT(std::ranges::count(bytes, '\0'), 60);
  }
  EXPECT_EQ(driven.memory.text(0xb00000 + 65536, 100), std::string(100, '\0'));
  test::Driven::stop(entropy);
}

}  // namespace
}  // namespace lodge::devices::virtio
