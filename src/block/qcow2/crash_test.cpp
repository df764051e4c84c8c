// What an image is worth after the power, the process or the disk has failed: no corruption, and all that was flushed.
//
// Every sector of the guest's disk is written as a pattern that says which sector it is and the how manieth write of it. After a crash each
// must show a version that it may: the last that a flush had covered, or one that was written later.
//
// LODGE_CRASH_SEEDS=N runs so many seeds instead of twelve.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "block/file.hpp"
#include "block/memory_node.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {
namespace {

constexpr uint64_t kDiskSize = 1 << 20, kSectors = kDiskSize / kSector;

unsigned seeds() {
  const char* const text = std::getenv("LODGE_CRASH_SEEDS");
  return text ? static_cast<unsigned>(std::max(1, std::atoi(text))) : 12;
}

void put_pattern(std::byte* sector, uint64_t number, uint64_t version) {
  for (uint64_t i = 0; i < kSector; i += 16) {
    std::memcpy(sector + i, &number, 8);
    std::memcpy(sector + i + 8, &version, 8);
  }
}

// What each sector may hold.
class History {
 public:
  explicit History(bool backed) : backed_(backed), issued_(kSectors), floor_(kSectors) {
    for (uint64_t n = 0; n < kSectors; ++n) issued_[n].push_back({0, 0, !backed_}), floor_[n].push_back({0, 0});
  }
  // A write begins at a moment; its version.
  uint64_t issue(uint64_t sector, uint64_t moment, bool zero) {
    const uint64_t version = issued_[sector].size();
    issued_[sector].push_back({moment, version, zero});
    return version;
  }
  void complete(uint64_t sector, uint64_t version) { completed_[sector] = std::max(completed_[sector], version); }
  // What a flush that begins now will have covered when it ends.
  [[nodiscard]] std::vector<uint64_t> completed() const { return completed_; }
  void covered(const std::vector<uint64_t>& versions, uint64_t moment) {
    for (uint64_t n = 0; n < kSectors; ++n)
      if (versions[n] > floor_[n].back().version) floor_[n].push_back({moment, versions[n]});
  }
  // Empty, or what is wrong with the disk's contents after a crash at a moment.
  [[nodiscard]] std::string judge(const std::vector<std::byte>& disk, uint64_t moment) const {
    for (uint64_t n = 0; n < kSectors; ++n) {
      uint64_t least = 0;
      for (const Floor& floor : floor_[n])
        if (floor.moment <= moment) least = floor.version;
      const std::byte* const sector = &disk[n * kSector];
      bool good = false;
      for (const Issue& issue : issued_[n]) {
        if (issue.version < least || issue.moment > moment) continue;
        std::byte expected[kSector] = {};
        if (!issue.zero) put_pattern(expected, n, issue.version);
        good = good || std::memcmp(sector, expected, kSector) == 0;
      }
      if (good) continue;
      uint64_t number = 0, version = 0;
      std::memcpy(&number, sector, 8);
      std::memcpy(&version, sector + 8, 8);
      return fmt::format("sector {} shows sector {} version {}, at least version {} of {} was safe", n, number, version, least,
                         issued_[n].size() - 1);
    }
    return {};
  }

 private:
  struct Issue {
    uint64_t moment, version;
    bool zero;
  };
  struct Floor {
    uint64_t moment, version;
  };
  bool backed_;
  std::vector<std::vector<Issue>> issued_;
  std::vector<std::vector<Floor>> floor_;
  std::vector<uint64_t> completed_ = std::vector<uint64_t>(kSectors);
};

constexpr uint64_t kPages = 6;  // of the metadata cache

struct Shape {
  const char* name;
  CreateOptions options;
  bool backed = false;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }
const Shape kShapes[] = {
    {"Default", {}},
    {"Tiny", {.cluster_bits = 9}},
    {"TinyWideRefcounts", {.cluster_bits = 9, .refcount_bits = 64}, true},
    {"Backed", {.cluster_bits = 12}, true},
    {"V2Backed", {.version = 2, .cluster_bits = 10}, true},
    {"Subclusters", {.cluster_bits = 14, .extended_l2 = true}, true},
};

std::shared_ptr<MemoryDisk> backing_disk() {
  auto disk = std::make_shared<MemoryDisk>();
  disk->bytes.resize(kDiskSize);
  for (uint64_t n = 0; n < kSectors; ++n) put_pattern(&disk->bytes[n * kSector], n, 0);
  return disk;
}

class Guest {
 public:
  Guest(IoContext& context, const Shape& shape, std::unique_ptr<Node> file, std::function<uint64_t()> now, uint64_t seed)
      : context_(context), random_(seed), history_(shape.backed), now_(std::move(now)) {
    CreateOptions options = shape.options;
    options.size = kDiskSize;
    if (shape.backed) options.backing_file = "below", options.backing_format = "raw";
    must(create(*file, options));
    image_ = open(context_, shape, std::move(file));
    cluster_ = uint64_t{1} << options.cluster_bits;
  }
  static std::unique_ptr<Image> open(IoContext& context, const Shape& shape, std::unique_ptr<Node> file) {
    // So few pages that commits come of themselves, too.
    const uint64_t pages = (uint64_t{4096} >> (shape.options.cluster_bits < 12 ? 12 - shape.options.cluster_bits : 0)) * kPages;
    auto opened = context.run(Image::open(context, std::move(file), {.metadata_bytes = pages}));
    if (!opened) throw std::runtime_error(opened.error().message);
    if (shape.backed) (*opened)->set_backing(std::make_unique<MemoryNode>(backing_disk()));
    return std::move(*opened);
  }
  void must(Task<Result<>> task) {
    if (auto done = context_.run(std::move(task)); !done) throw std::runtime_error(done.error().message);
  }

  // A random request in a range of sectors.
  Task<Result<>> request(uint64_t begin, uint64_t end) {
    const uint64_t kind = random_() % 20;
    const uint64_t first = begin + random_() % (end - begin);
    const uint64_t count = 1 + random_() % std::min<uint64_t>(end - first, 1 + 2 * cluster_ / kSector + random_() % 16);
    if (kind < 12) return write(first, count, kind == 0, false);
    if (kind < 15) return write(first, count, false, true);
    if (kind < 17) {
      const uint64_t aligned = first / (cluster_ / kSector) * (cluster_ / kSector);
      if (aligned >= begin && aligned + cluster_ / kSector <= end) return write(aligned, cluster_ / kSector, false, false, true);
    }
    return flush_all();
  }
  Task<Result<>> write(uint64_t first, uint64_t count, bool fua, bool zero, bool compressed = false) {
    std::vector<uint64_t> versions(count);
    std::vector<std::byte> data(count * kSector);
    for (uint64_t n = 0; n < count; ++n) {
      versions[n] = history_.issue(first + n, now_(), zero);
      put_pattern(&data[n * kSector], first + n, versions[n]);
    }
    Request request(zero ? Operation::WriteZeroes : Operation::Write, first * kSector, count * kSector);
    if (!zero) request.buffers = Buffers(data.data(), data.size());
    request.fua = fua;
    request.compressed = compressed;
    request.unmap = zero && random_() % 2;
    auto done = co_await image_->submit(request);
    if (!done) co_return done;
    for (uint64_t n = 0; n < count; ++n) history_.complete(first + n, versions[n]);
    if (fua) {
      auto covered = std::vector<uint64_t>(kSectors);
      for (uint64_t n = 0; n < count; ++n) covered[first + n] = versions[n];
      history_.covered(covered, now_());
    }
    co_return Result<>{};
  }
  Task<Result<>> flush_all() {
    const auto covered = history_.completed();
    auto done = co_await flush(*image_);
    if (done) history_.covered(covered, now_());
    co_return done;
  }
  // Several at once, each in its own range.
  Task<Result<>> work(unsigned requests, unsigned workers, bool errors_allowed = false) {
    TaskGroup group(workers);
    for (unsigned n = 0; n < workers; ++n) co_await group.add(work_in(n, workers, requests, errors_allowed));
    co_return co_await group.finish();
  }
  Task<Result<>> work_in(unsigned n, unsigned workers, unsigned requests, bool errors_allowed) {
    for (unsigned i = 0; i < requests; ++i) {
      auto done = co_await request(n * kSectors / workers, (n + 1) * kSectors / workers);
      if (!done && !errors_allowed) co_return done;
    }
    co_return Result<>{};
  }

  Image& image() { return *image_; }
  History& history() { return history_; }
  std::mt19937_64& random() { return random_; }
  void let_go() { image_.reset(); }

 private:
  IoContext& context_;
  std::mt19937_64 random_;
  History history_;
  std::function<uint64_t()> now_;
  std::unique_ptr<Image> image_;
  uint64_t cluster_ = 0;
};

// Opened as after a crash: contents, tables, and that it can be used on.
void expect_sound(IoContext& context, const Shape& shape, std::unique_ptr<Node> file, const History& history, uint64_t moment) {
  const auto image = Guest::open(context, shape, std::move(file));
  std::vector<std::byte> disk(kDiskSize);
  const auto done = context.run(read(*image, 0, disk.data(), disk.size()));
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ(history.judge(disk, moment), "");
  const auto found = context.run(image->check(Image::Repair::None, nullptr));
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->corruptions, 0u) << found->lines.at(0);
  const auto mended = context.run(image->check(Image::Repair::Leaks, nullptr));
  ASSERT_TRUE(mended) << mended.error().message;
  std::vector<std::byte> data(100'000, std::byte{0x5a});
  ASSERT_TRUE(context.run(write(*image, 12'345, data.data(), data.size())));
  ASSERT_TRUE(context.run(flush(*image)));
  const auto again = context.run(image->check(Image::Repair::None, nullptr));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->corruptions + again->leaks, 0u) << again->lines.at(0);
}

class Crashes : public testing::TestWithParam<Shape> {
 protected:
  std::unique_ptr<IoContext> context_ = IoContext::create().value();
};

// Any prefix of what reached the disk, of whose writes since the last flush any sectors may be missing.
TEST_P(Crashes, PowerLossKeepsWhatWasFlushed) {
  for (unsigned seed = 1; seed <= seeds(); ++seed) {
    auto disk = std::make_shared<MemoryDisk>();
    disk->keeps_diary = true;
    Guest guest(*context_, GetParam(), std::make_unique<MemoryNode>(disk), [&] { return disk->diary.size(); }, seed);
    const uint64_t created = disk->diary.size();
    const unsigned workers = seed % 3 == 0 ? 1 : 6;
    guest.must(guest.work(240 / workers, workers));
    guest.let_go();

    std::mt19937_64 random(seed);
    std::vector<std::byte> durable;
    const auto apply = [](std::vector<std::byte>& bytes, const MemoryDisk::Event& event, uint64_t begin, uint64_t end) {
      if (event.offset + event.data.size() > bytes.size()) bytes.resize(event.offset + event.data.size());
      std::copy(event.data.begin() + static_cast<ptrdiff_t>(begin), event.data.begin() + static_cast<ptrdiff_t>(end),
                bytes.begin() + static_cast<ptrdiff_t>(event.offset + begin));
    };
    uint64_t flushed = 0;  // events before this are in `durable`
    const uint64_t step = std::max<uint64_t>(1, (disk->diary.size() - created) / 60);
    for (uint64_t crash = created; crash <= disk->diary.size(); crash += 1 + random() % (2 * step)) {
      for (uint64_t next = flushed; next < crash; ++next) {
        if (!disk->diary[next].flush) continue;
        for (; flushed < next; ++flushed)
          if (!disk->diary[flushed].flush) apply(durable, disk->diary[flushed], 0, disk->diary[flushed].data.size());
        flushed = next + 1;
      }
      auto after = std::make_shared<MemoryDisk>();
      after->bytes = durable;
      const uint64_t chance = random() % 5;  // of a write or a sector to be there: none, some, all
      const bool torn = random() % 2;
      for (uint64_t n = flushed; n < crash; ++n) {
        const MemoryDisk::Event& event = disk->diary[n];
        if (!torn) {
          if (random() % 4 < chance) apply(after->bytes, event, 0, event.data.size());
          continue;
        }
        for (uint64_t begin = 0; begin < event.data.size();) {
          const uint64_t end = std::min<uint64_t>(event.data.size(), begin + kSector - (event.offset + begin) % kSector);
          if (random() % 4 < chance) apply(after->bytes, event, begin, end);
          begin = end;
        }
      }
      SCOPED_TRACE(fmt::format("seed {}, crash after {} of {} events, last flush {}, chance {} of 4, {}", seed, crash, disk->diary.size(),
                               flushed, chance, torn ? "by sectors" : "by writes"));
      expect_sound(*context_, GetParam(), std::make_unique<MemoryNode>(after), guest.history(), crash);
      if (HasFatalFailure()) return;
    }
  }
}

// A disk that fails now and then: requests fail, nothing else does, and afterwards all is well.
TEST_P(Crashes, FailingRequestsHarmNothing) {
  for (unsigned seed = 1; seed <= seeds(); ++seed) {
    auto disk = std::make_shared<MemoryDisk>();
    uint64_t moment = 0;
    Guest guest(*context_, GetParam(), std::make_unique<MemoryNode>(disk), [&] { return ++moment; }, seed);
    std::mt19937_64 random(seed);
    unsigned failed = 0;
    for (int round = 0; round < 6; ++round) {
      disk->fault = [&](const Request& request) {
        if (random() % 25) return 0;
        ++failed;
        return request.operation == Operation::Read ? EIO : ENOSPC;
      };
      guest.must(guest.work(30, 4, true));
      disk->fault = nullptr;
      guest.must(guest.work(5, 4));
      guest.must(guest.flush_all());
      const auto found = context_->run(guest.image().check(Image::Repair::None, nullptr));
      ASSERT_TRUE(found) << found.error().message;
      ASSERT_EQ(found->corruptions, 0u) << "round " << round << ": " << found->lines.at(0);
    }
    EXPECT_GT(failed, 20u);
    guest.must(guest.image().close());
    guest.let_go();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    expect_sound(*context_, GetParam(), std::make_unique<MemoryNode>(disk), guest.history(), moment);
  }
}

INSTANTIATE_TEST_SUITE_P(Qcow2, Crashes, testing::ValuesIn(kShapes), [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace lodge::block::qcow2
