// The format against a model in memory: random requests, one at a time and many at once, with reopening and checks in between.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>
#include <string>

#include "block/memory_node.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {
namespace {

struct Shape {
  const char* name;
  CreateOptions options;
  uint64_t backing_bytes = 0;
  uint64_t size = 3 << 20;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }

const Shape kShapes[] = {
    {"Default", {}},
    {"Tiny", {.cluster_bits = 9}, 0, 1 << 20},
    {"TinyV2Backed", {.version = 2, .cluster_bits = 9}, 700'000, 1 << 20},
    {"Backed", {.cluster_bits = 12}, 2'000'000},
    {"OneBit", {.cluster_bits = 10, .refcount_bits = 1}, 0, 1 << 20},
    {"FourBits", {.cluster_bits = 12, .refcount_bits = 4}, 1'000'000},
    {"SixtyFourBits", {.cluster_bits = 9, .refcount_bits = 64}, 0, 1 << 20},
    {"Subclusters", {.cluster_bits = 14, .extended_l2 = true}, 2'500'000},
    {"SubclustersAlone", {.cluster_bits = 16, .extended_l2 = true}},
    {"Zstd", {.cluster_bits = 12, .compression = Compression::Zstd}, 500'000},
    {"V2", {.version = 2, .cluster_bits = 16}},
    {"Large", {.cluster_bits = 21}, 3'000'000, 9 << 20},
    {"OddEnd", {.cluster_bits = 12}, 1'000'000, (1 << 20) + 1536},
};

class Machine {  // an image with its disk, its backing file and what the guest ought to see
 public:
  explicit Machine(const Shape& shape, uint64_t seed = 1) : random_(seed), shape_(shape) {
    model_.resize(shape.size);
    if (shape.backing_bytes) {
      backing_ = std::make_shared<MemoryDisk>();
      backing_->bytes.resize(shape.backing_bytes);
      fill(backing_->bytes);
      std::fill_n(backing_->bytes.begin() + 100'000, 50'000, std::byte{0});
      std::copy_n(backing_->bytes.begin(), std::min<uint64_t>(shape.backing_bytes, shape.size), model_.begin());
    }
    CreateOptions options = shape.options;
    options.size = shape.size;
    if (backing_) {
      options.backing_file = "below";
      options.backing_format = "raw";
    }
    MemoryNode node(disk_);
    must(create(node, options));
    open();
  }

  template <typename T>
  Result<T> run(Task<Result<T>> task) {
    return context_->run(std::move(task));
  }
  template <typename T>
  T must(Task<Result<T>> task) {
    auto result = run(std::move(task));
    if (!result) throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>) return std::move(*result);
  }
  void open(uint64_t metadata_bytes = 64 * 4096) {
    image_ = must(Image::open(*context_, std::make_unique<MemoryNode>(disk_), {.metadata_bytes = metadata_bytes}));
    if (backing_) image_->set_backing(std::make_unique<MemoryNode>(backing_));
  }
  void close() {
    must(image_->close());
    image_.reset();
  }

  std::string find_fault() {
    std::vector<std::byte> all(model_.size());
    must(read(*image_, 0, all.data(), all.size()));
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i] != model_[i])
        return fmt::format("byte {:#x} is {:#x}, should be {:#x}", i, static_cast<int>(all[i]), static_cast<int>(model_[i]));
    return {};
  }
  // Of the metadata.
  std::string check() {
    const auto found = must(image_->check(Image::Repair::None, nullptr));
    if (found.corruptions == 0 && found.leaks == 0) return {};
    std::string text = fmt::format("{} corruptions, {} leaks", found.corruptions, found.leaks);
    for (size_t i = 0; i < std::min<size_t>(found.lines.size(), 10); ++i) text += "\n" + found.lines[i];
    return text;
  }

  // A random request; the model changes with it.
  Task<Result<>> request(uint64_t region_begin, uint64_t region_end) {
    const uint64_t cluster = uint64_t{1} << shape_.options.cluster_bits;
    const uint64_t step = std::array<uint64_t, 4>{1, 512, 4096, cluster}[random_() % 4];
    uint64_t offset = region_begin + random_() % (region_end - region_begin);
    offset = std::max(region_begin, offset / step * step);
    uint64_t length =
        1 + random_() % std::min<uint64_t>(region_end - offset, 1 + random_() % std::min<uint64_t>(4 * cluster + 20'000, 300'000));
    if (step > 1 && length > step) length = length / step * step;
    const unsigned kind = random_() % 16;
    if (kind < 9) return write_random(offset, length, random_() % 8 == 0);
    if (kind < 11) return write_zeroes_here(offset, length, random_() % 2);
    if (kind < 12) return discard_here(offset, length);
    if (kind < 13) return write_compressed_here(offset / cluster * cluster, region_begin, region_end);
    if (kind < 14) return flush_here();
    return read_here(offset, length);
  }

  std::vector<std::byte>& model() { return model_; }
  Image& image() { return *image_; }

 private:
  void fill(std::vector<std::byte>& bytes) {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const uint64_t word = random_();
      std::memcpy(&bytes[i], &word, std::min<size_t>(8, bytes.size() - i));
    }
  }
  Task<Result<>> write_random(uint64_t offset, uint64_t length, bool fua) {
    std::vector<std::byte> data(length);
    fill(data);
    std::copy(data.begin(), data.end(), model_.begin() + static_cast<ptrdiff_t>(offset));
    Request request(Operation::Write, offset, Buffers(data.data(), data.size()));
    request.fua = fua;
    co_return co_await image_->submit(request);
  }
  Task<Result<>> write_zeroes_here(uint64_t offset, uint64_t length, bool unmap) {
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
    co_return co_await block::write_zeroes(*image_, offset, length, unmap);
  }
  // Whole clusters read as zeros or stay: which, the image tells.
  Task<Result<>> discard_here(uint64_t offset, uint64_t length) {
    auto done = co_await block::discard(*image_, offset, length);
    if (!done) co_return done;
    std::vector<std::byte> now(length);
    CO_TRY(block::read(*image_, offset, now.data(), length));
    for (uint64_t i = 0; i < length; ++i) {
      if (now[i] != std::byte{0} && now[i] != model_[offset + i])
        co_return fail(ErrorKind::Internal, "discard left byte {:#x} changed", offset + i);
      model_[offset + i] = now[i];
    }
    co_return Result<>{};
  }
  Task<Result<>> write_compressed_here(uint64_t offset, uint64_t region_begin, uint64_t region_end) {
    const uint64_t cluster = uint64_t{1} << shape_.options.cluster_bits;
    const uint64_t length = std::min(cluster, model_.size() - offset);
    if (offset < region_begin || offset + length > region_end) co_return Result<>{};
    std::vector<std::byte> data(length);
    for (size_t i = 0; i < length; ++i) data[i] = i % 8 ? std::byte{7} : static_cast<std::byte>(random_());
    std::copy(data.begin(), data.end(), model_.begin() + static_cast<ptrdiff_t>(offset));
    Request request(Operation::Write, offset, Buffers(data.data(), data.size()));
    request.compressed = true;
    co_return co_await image_->submit(request);
  }
  Task<Result<>> flush_here() { co_return co_await flush(*image_); }
  Task<Result<>> read_here(uint64_t offset, uint64_t length) {
    std::vector<std::byte> data(length);
    auto done = co_await block::read(*image_, offset, data.data(), length);
    if (done && !std::equal(data.begin(), data.end(), model_.begin() + static_cast<ptrdiff_t>(offset)))
      co_return fail(ErrorKind::Internal, "read at {:#x}, {} bytes", offset, length);
    co_return done;
  }

  std::mt19937_64 random_;
  Shape shape_;
  std::unique_ptr<IoContext> context_ = IoContext::create().value();
  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>(), backing_;
  std::unique_ptr<Image> image_;
  std::vector<std::byte> model_;
};

class Shapes : public testing::TestWithParam<Shape> {};

TEST_P(Shapes, HoldWhatAModelHolds) {
  Machine machine(GetParam());
  ASSERT_EQ(machine.find_fault(), "") << "as it was made";
  ASSERT_EQ(machine.check(), "");
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 60; ++i) machine.must(machine.request(0, GetParam().size));
    ASSERT_EQ(machine.find_fault(), "") << "round " << round;
    if (round % 3 == 2) {
      machine.close();
      machine.open();
      ASSERT_EQ(machine.find_fault(), "") << "opened again, round " << round;
    }
    ASSERT_EQ(machine.check(), "") << "round " << round;
  }
}

// Requests in flight together, each in a region of its own that does not end at clusters' bounds.
TEST_P(Shapes, ManyRequestsAtOnce) {
  Machine machine(GetParam(), 2);
  constexpr uint64_t kRegions = 16;
  const uint64_t stride = GetParam().size / kRegions;
  const auto worker = [&](uint64_t n) -> Task<Result<>> {
    const uint64_t begin = n * stride + (n % 2 ? 777 : 0), end = (n + 1) * stride + (n % 2 ? 0 : 777);
    for (int i = 0; i < 40; ++i) CO_TRY(machine.request(begin, n + 1 == kRegions ? GetParam().size : end));
    co_return Result<>{};
  };
  const auto all = [&]() -> Task<Result<>> {
    TaskGroup group(kRegions);
    for (uint64_t n = 0; n < kRegions; ++n) co_await group.add(worker(n));
    co_return co_await group.finish();
  };
  machine.must(all());
  EXPECT_EQ(machine.find_fault(), "");
  EXPECT_EQ(machine.check(), "");
  machine.close();
  machine.open();
  EXPECT_EQ(machine.find_fault(), "");
  EXPECT_EQ(machine.check(), "");
}

TEST_P(Shapes, SnapshotsKeepWhatWasThere) {
  if (GetParam().options.refcount_bits == 1) GTEST_SKIP() << "one bit cannot count two";
  Machine machine(GetParam(), 3);
  std::map<std::string, std::vector<std::byte>> kept;
  // Compressed data of many snapshots in one cluster may be shared more often than four bits can say. Then nothing has changed.
  const auto counted = [&](const Result<>& done) {
    if (done) return true;
    EXPECT_EQ(GetParam().options.refcount_bits, 4u) << done.error().message;
    EXPECT_NE(done.error().message.find("refcounts of 4 bits can say no more"), std::string::npos) << done.error().message;
    return false;
  };
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 25; ++i) machine.must(machine.request(0, GetParam().size));
    const std::string name = fmt::format("s{}", round);
    if (counted(machine.run(machine.image().create_snapshot(name)))) kept[name] = machine.model();
    ASSERT_EQ(machine.find_fault(), "") << "created " << name;
    ASSERT_EQ(machine.check(), "") << "created " << name;
    if (round == 3) {
      if (counted(machine.run(machine.image().apply_snapshot("s1")))) machine.model() = kept["s1"];
      ASSERT_EQ(machine.find_fault(), "");
      ASSERT_EQ(machine.check(), "") << "applied";
    }
    if (round == 4) {
      machine.must(machine.image().delete_snapshot("s2"));
      kept.erase("s2");
      ASSERT_EQ(machine.check(), "") << "deleted";
      machine.close();
      machine.open();
    }
  }
  EXPECT_GE(kept.size(), 3u);
  for (const auto& [name, contents] : kept) {
    if (counted(machine.run(machine.image().apply_snapshot(name)))) machine.model() = contents;
    EXPECT_EQ(machine.find_fault(), "") << name;
    EXPECT_EQ(machine.check(), "") << name;
  }
  while (!machine.image().snapshots().empty()) machine.must(machine.image().delete_snapshot(machine.image().snapshots()[0].id));
  EXPECT_EQ(machine.check(), "");
}

TEST_P(Shapes, GrowAndShrink) {
  Machine machine(GetParam(), 4);
  for (const uint64_t size : {GetParam().size * 3 + 512, GetParam().size / 2 + 1024, GetParam().size * 2}) {
    for (int i = 0; i < 30; ++i) machine.must(machine.request(0, machine.model().size()));
    machine.must(machine.image().resize(size));
    machine.model().resize(size);
    ASSERT_EQ(machine.find_fault(), "") << size;
    ASSERT_EQ(machine.check(), "") << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Qcow2, Shapes, testing::ValuesIn(kShapes), [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace lodge::block::qcow2
