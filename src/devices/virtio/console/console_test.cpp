#include "devices/virtio/console/console.hpp"

#include <gtest/gtest.h>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

constexpr unsigned kSize = 0, kEmergency = 2;
constexpr uint64_t kData = 0x800000;

struct Line final : console::Backend {
  void write(std::span<const uint8_t> bytes) override { written.append(bytes.begin(), bytes.end()); }
  void set_sink(console::InputSink now) override { sink = std::move(now); }
  [[nodiscard]] std::optional<Size> size() const override { return window; }
  // What fits of it.
  size_t type(const std::string& text) const {
    const size_t room = std::min(sink.space ? sink.space() : 0, text.size());
    if (room != 0) sink.receive({reinterpret_cast<const uint8_t*>(text.data()), room});
    return room;
  }
  console::InputSink sink;
  std::string written;
  std::optional<Size> window;
};

class VirtioConsole : public testing::TestWithParam<test::Shape> {
 protected:
  ~VirtioConsole() override {
    if (console) test::Driven::stop(*console);
  }
  void start(uint64_t features = 0) {
    if (!console) console = std::make_unique<Console>(driven.worker, line);
    driven.start(*console, features, {0, 1}, 16, GetParam());
  }
  test::Driven driven;
  Line line;
  std::unique_ptr<Console> console;
};

INSTANTIATE_TEST_SUITE_P(Rings, VirtioConsole, testing::ValuesIn(test::kAllShapes),
                         [](const auto& tested) { return test::name_of(tested.param); });

TEST_P(VirtioConsole, WhatTheGuestPrintsIsWritten) {
  start();
  driven.memory.put_text(kData, "hello, world");
  driven.ring(1).add({{kData, 5}, {kData + 5, 7}});
  driven.ring(1).add({{kData, 2}});
  console->notified();
  EXPECT_EQ(line.written, "hello, worldhe");
  EXPECT_EQ(driven.ring(1).used().size(), 2u);
  EXPECT_EQ(driven.port.interrupts[1], 1u);
}

TEST_P(VirtioConsole, WhatIsTypedFillsTheBuffersThereAre) {
  start();
  EXPECT_EQ(line.type("lost?"), 0u) << "it waits until there is room";
  driven.ring(0).must_notify();
  driven.ring(0).add({{kData, 3, true}, {kData + 0x100, 4, true}});
  EXPECT_TRUE(driven.ring(0).must_notify());
  console->notified();
  EXPECT_EQ(line.type("0123456789"), 7u);
  auto used = driven.ring(0).used();
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].length, 7u);
  EXPECT_EQ(driven.memory.text(kData, 3) + driven.memory.text(kData + 0x100, 4), "0123456");
  EXPECT_EQ(driven.port.interrupts[0], 1u);
  EXPECT_EQ(line.type("789"), 0u);
  // A buffer for nothing goes back empty.
  driven.ring(0).add({{kData, 3}});
  driven.ring(0).add({{kData, 100, true}});
  EXPECT_EQ(line.type("789"), 3u);
  used = driven.ring(0).used();
  ASSERT_EQ(used.size(), 2u);
  EXPECT_EQ(used[0].length, 0u);
  EXPECT_EQ(used[1].length, 3u);
}

TEST_P(VirtioConsole, TheWindowsSizeIsToldAndFollowed) {
  line.window = {{120, 50}};
  start(feature(kSize));
  EXPECT_TRUE(console->features() & feature(kSize));
  EXPECT_EQ(driven.port.config_changes, 1u) << "Linux looks only then";
  EXPECT_EQ(test::config_of<uint16_t>(*console, 0), 120u);
  EXPECT_EQ(test::config_of<uint16_t>(*console, 2), 50u);
  EXPECT_EQ(test::config_of<uint32_t>(*console, 4), 1u);
  line.window = {{80, 25}};
  console->size_changed();
  EXPECT_EQ(driven.port.config_changes, 2u);
  EXPECT_EQ(test::config_of<uint16_t>(*console, 0), 80u);
}

TEST_P(VirtioConsole, WithoutATerminalThereIsNoSize) {
  start();
  EXPECT_FALSE(console->features() & feature(kSize));
  EXPECT_EQ(test::config_of<uint32_t>(*console, 0), 0u);
  EXPECT_EQ(driven.port.config_changes, 0u);
}

TEST_P(VirtioConsole, ACharacterInAnEmergency) {
  start(feature(kEmergency));
  const std::array<uint8_t, 4> character{'!', 0, 0, 0};
  console->write_config(8, character);
  console->write_config(4, character);
  EXPECT_EQ(line.written, "!");
}

TEST_P(VirtioConsole, AResetTakesTheBuffersBack) {
  start();
  driven.ring(0).add({{kData, 3, true}});
  EXPECT_EQ(line.sink.space(), 3u);
  EXPECT_EQ(driven.memory.open, 1);
  test::Driven::stop(*console);
  EXPECT_EQ(driven.memory.open, 0);
  EXPECT_FALSE(line.sink.space) << "nobody there";
  EXPECT_EQ(line.type("x"), 0u);
  start();
  driven.ring(0).add({{kData, 3, true}});
  EXPECT_EQ(line.type("abc"), 3u);
  EXPECT_EQ(driven.memory.text(kData, 3), "abc");
}

}  // namespace
}  // namespace lodge::devices::virtio
