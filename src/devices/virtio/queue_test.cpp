#include "devices/virtio/queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

using test::Memory;
using test::Piece;
using test::Ring;
using test::Shape;
using Used = Ring::Used;

constexpr uint64_t kRing = 0x100000, kData = 0x800000;

class Queues : public testing::TestWithParam<Shape> {
 protected:
  void configure(uint16_t size = 8) {
    ring.emplace(memory, kRing, size, GetParam());
    ASSERT_TRUE(queue.configure(*memory.guest, ring->setup())) << queue.what_is_broken();
  }
  // Where a piece of a chain lies in the guest.
  [[nodiscard]] Piece piece(const iovec& at, bool write) const {
    const auto* const host = static_cast<const std::byte*>(at.iov_base);
    return {static_cast<uint64_t>(host - memory.guest->regions()[0].host), static_cast<uint32_t>(at.iov_len), write};
  }

  Memory memory;
  std::optional<Ring> ring;
  Queue queue;
  Chain chain;
};

INSTANTIATE_TEST_SUITE_P(Rings, Queues, testing::ValuesIn(test::kAllShapes),
                         [](const auto& tested) { return test::name_of(tested.param); });

TEST_P(Queues, ABufferIsItsPiecesInOrder) {
  configure();
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.pop(chain));
  const uint16_t id = ring->add({{kData, 10}, {kData + 0x1003, 5}, {kData + 0x2000, 0x3000, true}, {kData + 0x9000, 1, true}});
  EXPECT_FALSE(queue.empty());
  ASSERT_TRUE(queue.pop(chain));
  ASSERT_EQ(chain.readable().size(), 2u);
  ASSERT_EQ(chain.writable().size(), 2u);
  EXPECT_EQ(piece(chain.readable()[0], false).address, kData);
  EXPECT_EQ(piece(chain.readable()[1], false).address, kData + 0x1003);
  EXPECT_EQ(piece(chain.writable()[0], true).address, kData + 0x2000);
  EXPECT_EQ(chain.writable_ranges()[1].guest_physical, kData + 0x9000);
  EXPECT_EQ(chain.readable_bytes(), 15u);
  EXPECT_EQ(chain.writable_bytes(), 0x3001u);
  EXPECT_EQ(memory.open, 2) << "both pieces that the device may write are announced";
  EXPECT_TRUE(ring->used().empty());
  Chain second;
  EXPECT_FALSE(queue.pop(second));
  const uint16_t second_id = ring->add({{kData, 1}});
  ASSERT_TRUE(queue.pop(second));
  queue.push(second, 0);
  queue.push(chain, 0x3001);
  EXPECT_EQ(memory.open, 0);
  EXPECT_EQ(ring->used(), (std::vector<Used>{{second_id, 0}, {id, 0x3001}})) << "in the order in which they are done";
}

TEST_P(Queues, PiecesOfNoBytesAreNone) {
  configure();
  ring->add({{kData, 0}, {kData, 3}, {kData, 0, true}});
  ASSERT_TRUE(queue.pop(chain));
  EXPECT_EQ(chain.readable().size(), 1u);
  EXPECT_TRUE(chain.writable().empty());
  queue.push(chain, 0);
  ring->add({{~uint64_t{0}, 0}});
  ASSERT_TRUE(queue.pop(chain)) << "an address that nobody goes to";
  EXPECT_TRUE(chain.readable().empty() && chain.writable().empty());
  queue.push(chain, 0);
  EXPECT_EQ(ring->used().size(), 2u);
}

// Round and round, with chains of all lengths that come back in any order, up to the end of 16-bit indices and beyond.
TEST_P(Queues, GoRoundForEver) {
  for (const uint16_t size : {uint16_t{1}, uint16_t{2}, uint16_t{16}, uint16_t{256}}) {
    configure(size);
    std::minstd_rand random(size);
    std::vector<std::pair<std::unique_ptr<Chain>, Used>> held;
    uint64_t done = 0;
    for (uint32_t turn = 0; turn < 90000 / std::min<uint32_t>(size, 16); ++turn) {
      while (ring->room() != 0 && random() % 4 != 0) {
        const size_t most = GetParam().indirect ? 8 : std::min<size_t>(ring->room(), 8);
        std::vector<Piece> pieces(1 + random() % most);
        for (size_t i = 0; i < pieces.size(); ++i)
          pieces[i] = {kData + random() % 0x10000, static_cast<uint32_t>(1 + random() % 5000), i >= pieces.size() / 2};
        const uint16_t id = ring->add(pieces);
        auto taken = std::make_unique<Chain>();
        ASSERT_TRUE(queue.pop(*taken)) << queue.what_is_broken();
        ASSERT_EQ(taken->readable().size() + taken->writable().size(), pieces.size());
        for (size_t i = 0; i < pieces.size(); ++i) {
          const Piece got =
              i < pieces.size() / 2 ? piece(taken->readable()[i], false) : piece(taken->writable()[i - pieces.size() / 2], true);
          ASSERT_EQ(got.address, pieces[i].address);
          ASSERT_EQ(got.length, pieces[i].length);
        }
        held.emplace_back(std::move(taken), Used{id, static_cast<uint32_t>(random())});
      }
      ASSERT_FALSE(queue.pop(chain));
      std::ranges::shuffle(held, random);
      std::vector<Used> expected;
      while (!held.empty() && random() % 4 != 0) {
        queue.push(*held.back().first, held.back().second.length);
        expected.push_back(held.back().second);
        held.pop_back();
      }
      ASSERT_EQ(ring->used(), expected);
      done += expected.size();
    }
    for (const auto& [left, used] : held) queue.push(*left, 0);
    EXPECT_GT(done, 5000u);
    EXPECT_FALSE(queue.broken()) << queue.what_is_broken();
  }
}

TEST_P(Queues, WhatIsPutBackComesAgain) {
  configure(4);
  for (unsigned round = 0; round < 20; ++round) {
    const uint16_t id =
        ring->add(round % 2 ? std::vector<Piece>{{kData, 7, true}} : std::vector<Piece>{{kData, 7}, {kData, 9}, {kData, 4, true}});
    for (unsigned again = 0; again < 3; ++again) {
      ASSERT_TRUE(queue.pop(chain));
      EXPECT_FALSE(queue.pop(*std::make_unique<Chain>()));
      queue.unpop(chain);
      EXPECT_EQ(memory.open, 0);
      EXPECT_FALSE(queue.empty());
    }
    ASSERT_TRUE(queue.pop(chain));
    queue.push(chain, round);
    EXPECT_EQ(ring->used(), (std::vector<Used>{{id, round}}));
  }
}

TEST_P(Queues, SeveralComeAtOnceOrNotAtAll) {
  configure(8);
  for (unsigned round = 0; round < 10; ++round) {
    std::array<Chain, 3> chains;
    std::vector<Used> expected;
    for (unsigned i = 0; i < 3; ++i) {
      expected.push_back({ring->add({{kData, 16, true}}), i + 1});
      ASSERT_TRUE(queue.pop(chains[i]));
    }
    const std::array<Queue::Used, 3> all{{{chains.data(), 1}, {&chains[1], 2}, {&chains[2], 3}}};
    unsigned seen_early = 0, commits = 0, seen_at = 0;
    memory.committed = [&] {
      ++commits;
      if (ring->any_used() && seen_at == 0) seen_at = commits;
      seen_early = seen_at;
    };
    queue.push(all);
    memory.committed = nullptr;
    EXPECT_EQ(seen_early, commits) << "the first is handed over by the last write";
    EXPECT_EQ(ring->used(), expected);
  }
}

TEST_P(Queues, TheDeviceSaysWhetherToNotify) {
  configure(8);
  for (unsigned round = 0; round < 30; ++round) {
    EXPECT_FALSE(queue.allow_notifications());
    ring->add({{kData, 1}});
    EXPECT_TRUE(ring->must_notify()) << round;
    queue.suppress_notifications();
    ASSERT_TRUE(queue.pop(chain));
    queue.push(chain, 0);
    ring->add({{kData, 1}});
    EXPECT_FALSE(ring->must_notify()) << round;
    EXPECT_TRUE(queue.allow_notifications()) << "one has come that was not told of";
    ASSERT_TRUE(queue.pop(chain));
    queue.push(chain, 0);
    EXPECT_FALSE(queue.allow_notifications());
    ring->add({{kData, 1}});
    ring->add({{kData, 1}, {kData, 2}});
    EXPECT_TRUE(ring->must_notify()) << "for any of several";
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(queue.pop(chain));
      queue.push(chain, 0);
    }
    EXPECT_EQ(ring->used().size(), 4u);
  }
}

TEST_P(Queues, TheDriverSaysWhetherToInterrupt) {
  configure(8);
  EXPECT_FALSE(queue.wants_interrupt()) << "for nothing";
  for (unsigned round = 0; round < 30; ++round) {
    const auto give = [&](unsigned buffers) {
      for (unsigned i = 0; i < buffers; ++i) {
        ring->add({{kData, 1}});
        ASSERT_TRUE(queue.pop(chain));
        queue.push(chain, 0);
      }
    };
    ring->no_interrupts();
    give(1);
    EXPECT_FALSE(queue.wants_interrupt()) << round;
    ring->used();
    ring->interrupt_after(0);
    give(1);
    EXPECT_TRUE(queue.wants_interrupt()) << round;
    EXPECT_FALSE(queue.wants_interrupt()) << "once";
    ring->used();
    if (GetParam().event_index) {
      ring->interrupt_after(2);
      give(2);
      EXPECT_FALSE(queue.wants_interrupt()) << round;
      give(1);
      EXPECT_TRUE(queue.wants_interrupt()) << round;
      ring->used();
    }
  }
}

TEST_P(Queues, OnlyWhatLiesInMemoryIsAQueue) {
  const QueueSetup good = Ring(memory, kRing, 8, GetParam()).setup();
  const auto refused = [&](auto change) {
    QueueSetup setup = good;
    change(setup);
    Queue other;
    const bool taken = other.configure(*memory.guest, setup);
    EXPECT_EQ(other.broken(), !taken);
    EXPECT_EQ(other.ready(), taken);
    EXPECT_FALSE(other.pop(chain));
    return !taken;
  };
  EXPECT_FALSE(refused([](QueueSetup&) {}));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.size = 0; }));
  EXPECT_TRUE(refused([](QueueSetup& s) { s.size = 32769; }));
  EXPECT_EQ(refused([](QueueSetup& s) { s.size = 6; }), !GetParam().packed) << "2.8: any size, 2.7: powers of two";
  EXPECT_TRUE(refused([](QueueSetup& s) { s.descriptors += 8; })) << "16 bytes";
  EXPECT_TRUE(refused([](QueueSetup& s) { s.device_area += 2; })) << "4 bytes";
  EXPECT_TRUE(refused([](QueueSetup& s) { s.driver_area += 1; }));
  for (const uint64_t far : {Memory::kBytes, Memory::kBytes - 1, ~uint64_t{0xf}, uint64_t{1} << 63}) {
    EXPECT_TRUE(refused([far](QueueSetup& s) {
      s.descriptors = far & ~uint64_t{15};
      s.size = 32768;
    }));
    EXPECT_TRUE(refused([far](QueueSetup& s) { s.driver_area = (far & ~uint64_t{3}) + (far == Memory::kBytes - 1 ? 4 : 0); }));
    EXPECT_TRUE(refused([far](QueueSetup& s) { s.device_area = (far & ~uint64_t{3}) + (far == Memory::kBytes - 1 ? 4 : 0); }));
  }
  EXPECT_FALSE(refused([](QueueSetup& s) { s.descriptors = Memory::kBytes - 8 * 16; })) << "up to the last byte";
}

// --- Drivers that lie. Each leaves a broken queue, no write begun, and nothing more to take.

class Lies : public Queues {
 protected:
  void expect_broken() {
    Chain taken;
    EXPECT_FALSE(queue.pop(taken));
    EXPECT_TRUE(queue.broken());
    EXPECT_FALSE(queue.ready());
    EXPECT_EQ(memory.open, 0);
    EXPECT_FALSE(queue.pop(taken));
    EXPECT_FALSE(queue.allow_notifications());
    queue.suppress_notifications();
    EXPECT_FALSE(queue.wants_interrupt());
    EXPECT_TRUE(ring->used().empty());
  }
};

INSTANTIATE_TEST_SUITE_P(Rings, Lies, testing::ValuesIn(test::kAllShapes), [](const auto& tested) { return test::name_of(tested.param); });

TEST_P(Lies, BuffersOutsideMemory) {
  for (const Piece& bad : {Piece{Memory::kBytes, 1}, Piece{Memory::kBytes - 1, 2, true}, Piece{~uint64_t{0}, 1},
                           Piece{~uint64_t{0} - 2, 8, true}, Piece{uint64_t{1} << 63, 0xffffffff}, Piece{0, 0xffffffff, true}}) {
    configure();
    ring->add({bad});
    expect_broken();
    configure();
    ring->add({{kData, 4, bad.write}, bad});
    expect_broken();
  }
}

TEST_P(Lies, ToBeReadBehindToBeWritten) {
  configure();
  ring->add({{kData, 4, true}, {kData, 4}});
  expect_broken();
}

TEST_P(Lies, WhatIsHeldGoesBackToABrokenQueueWithoutATrace) {
  configure();
  ring->add({{kData, 4, true}});
  ASSERT_TRUE(queue.pop(chain));
  ring->add({{Memory::kBytes, 4}});
  Chain other;
  EXPECT_FALSE(queue.pop(other));
  EXPECT_TRUE(queue.broken());
  queue.push(chain, 4);
  EXPECT_EQ(memory.open, 0);
  EXPECT_TRUE(ring->used().empty());
}

TEST_P(Lies, IndirectTables) {
  struct Table {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
  };
  for (const Table& bad :
       {Table{kData, 0, 0}, Table{kData, 15, 0}, Table{kData, 24, 0}, Table{Memory::kBytes - 16, 32, 0}, Table{~uint64_t{0} - 8, 16, 0},
        Table{kData, 16 * 1025, 0}, Table{kData, 0xfffffff0, 0}, Table{kData, 16, Ring::kNext}}) {
    configure();
    for (uint64_t at = kData; at < kData + 16 * 1025; at += 16) ring->put_descriptor(at, kData, 4, 0, 0);
    const auto flags = static_cast<uint16_t>(Ring::kIndirect | bad.flags);
    if (GetParam().packed) {
      ring->put_descriptor(ring->descriptors(), bad.address, bad.bytes, static_cast<uint16_t>(flags | ring->available_flags()), 0);
    } else {
      ring->put_descriptor(ring->descriptors(), bad.address, bad.bytes, flags, 1);
      ring->offer(0);
    }
    expect_broken();
  }
  // A table within a table.
  configure();
  ring->put_descriptor(kData, kData + 0x100, 16, Ring::kIndirect, 0);
  ring->put_descriptor(kData + 0x100, kData, 4, 0, 0);
  if (GetParam().packed) {
    ring->put_descriptor(ring->descriptors(), kData, 16, static_cast<uint16_t>(Ring::kIndirect | ring->available_flags()), 0);
  } else {
    ring->put_descriptor(ring->descriptors(), kData, 16, Ring::kIndirect, 0);
    ring->offer(0);
  }
  expect_broken();
  // One that was not agreed on.
  if (GetParam().indirect) return;
  configure();
  ring->put_descriptor(kData, kData, 4, 0, 0);
  if (GetParam().packed) {
    ring->put_descriptor(ring->descriptors(), kData, 16, static_cast<uint16_t>(Ring::kIndirect | ring->available_flags()), 0);
  } else {
    ring->put_descriptor(ring->descriptors(), kData, 16, Ring::kIndirect, 0);
    ring->offer(0);
  }
  expect_broken();
}

TEST_P(Lies, ChainsThatGoRound) {
  if (GetParam().packed) {
    // Every entry says that there is a next one.
    configure();
    for (uint16_t i = 0; i < 8; ++i)
      ring->put_descriptor(ring->descriptors() + 16 * i, kData, 4, static_cast<uint16_t>(Ring::kNext | ring->available_flags()), i);
    expect_broken();
    return;
  }
  configure();
  ring->put_descriptor(ring->descriptors(), kData, 4, Ring::kNext, 1);
  ring->put_descriptor(ring->descriptors() + 16, kData, 4, Ring::kNext, 0);
  ring->offer(0);
  expect_broken();
  configure();
  ring->put_descriptor(ring->descriptors(), kData, 4, Ring::kNext, 8);
  ring->offer(0);
  expect_broken();
  configure();
  ring->offer(8);
  expect_broken();
  configure();
  ring->offer(0xffff);
  expect_broken();
  configure();
  for (int i = 0; i < 9; ++i) ring->offer(0);  // more than the queue has
  expect_broken();
  if (!GetParam().indirect) return;
  for (const uint16_t next : {uint16_t{0}, uint16_t{1}, uint16_t{2}, uint16_t{0xffff}}) {
    configure();
    ring->put_descriptor(kData, kData, 4, Ring::kNext, next == 1 ? 1 : next);
    ring->put_descriptor(kData + 16, kData, 4, Ring::kNext, 0);
    ring->put_descriptor(ring->descriptors(), kData, 32, Ring::kIndirect, 0);
    ring->offer(0);
    expect_broken();
  }
}

}  // namespace
}  // namespace lodge::devices::virtio
