#include "block/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "base/test_folder.hpp"
#include "block/raw.hpp"

namespace lodge::block {
namespace {

struct Way {
  IoContext::Kind kind;
  Cache cache;
};

class Files : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    auto made = IoContext::create(GetParam().kind);
    if (!made && GetParam().kind == IoContext::Kind::Uring) GTEST_SKIP() << made.error().message;
    context_ = std::move(*made);
    auto opened = File::create(*context_, folder_ / "image", {.cache = GetParam().cache});
    if (!opened && opened.error().kind == ErrorKind::Unsupported) GTEST_SKIP() << opened.error().message;
    ASSERT_TRUE(opened) << opened.error().message;
    file_ = std::move(*opened);
  }
  void good(Task<Result<>> task) {
    const auto result = context_->run(std::move(task));
    ASSERT_TRUE(result) << result.error().message;
  }
  test::Folder folder_;
  std::unique_ptr<IoContext> context_;
  std::unique_ptr<File> file_;
};

// Random requests against a model in memory, at all alignments.
TEST_P(Files, HoldWhatAModelHolds) {
  constexpr uint64_t kSize = 256 * 1024;
  std::mt19937_64 random(1);
  std::string model(kSize, '\0');
  good(file_->resize(kSize));
  for (int i = 0; i < 400; ++i) {
    const uint64_t step = i % 3 == 0 ? 4096 : 1;
    const uint64_t offset = random() % kSize / step * step;
    const uint64_t length = std::min<uint64_t>(kSize - offset, (random() % 20000 + step) / step * step);
    std::string data(length, '\0');
    for (char& byte : data) byte = static_cast<char>(random());
    switch (random() % 4) {
      case 0: {
        Buffers parts;
        for (uint64_t at = 0; at < length; at += 3000) parts.append(data.data() + at, std::min<uint64_t>(3000, length - at));
        Request request(Operation::Write, offset, parts);
        request.fua = i % 2;
        good(file_->submit(request));
        model.replace(offset, length, data);
        break;
      }
      case 1:
        good(write_zeroes(*file_, offset, length, i % 2));
        model.replace(offset, length, std::string(length, '\0'));
        break;
      case 2: good(flush(*file_)); break;
      default: good(read(*file_, offset, data.data(), length)); ASSERT_EQ(data, model.substr(offset, length)) << offset << " " << length;
    }
  }
  std::string all(kSize, 'x');
  good(read(*file_, 0, all.data(), kSize));
  EXPECT_EQ(all, model);
}

TEST_P(Files, GrowByWritesAndReadZerosBehindTheEnd) {
  std::string data(5000, 'a');
  good(write(*file_, 3000, data.data(), data.size()));
  EXPECT_GE(file_->size(), 8000u);
  std::string back(10000, 'x');
  good(read(*file_, 0, back.data(), back.size()));
  EXPECT_EQ(back, std::string(3000, '\0') + data + std::string(2000, '\0'));
}

TEST_P(Files, ManyBuffersAtOnce) {
  std::string data(5000 * 8, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 256);
  Buffers parts;
  for (size_t i = 0; i < data.size(); i += 16) parts.append(data.data() + i, 8);  // with gaps: none can be joined
  Request request(Operation::Write, 0, parts);
  ASSERT_GT(parts.vectors().size(), 1024u);
  good(file_->submit(request));
  std::string back(data.size(), 'x');
  Buffers into;
  for (size_t i = 0; i < back.size(); i += 16) into.append(back.data() + i, 8);
  Request again(Operation::Read, 0, into);
  good(file_->submit(again));
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(back[i], i % 16 < 8 ? data[i] : 'x') << i;
}

TEST_P(Files, MapTellsHolesFromData) {
  good(file_->resize(1 << 20));
  std::string data(65536, 'a');
  good(write(*file_, 131072, data.data(), data.size()));
  const auto hole = context_->run(file_->map(0, 1 << 20));
  ASSERT_TRUE(hole);
  if (hole->data) GTEST_SKIP() << "this file system keeps no holes";
  EXPECT_TRUE(hole->zero);
  EXPECT_EQ(hole->length, 131072u);
  const auto full = context_->run(file_->map(131072, 1 << 20));
  ASSERT_TRUE(full);
  EXPECT_TRUE(full->data);
  EXPECT_EQ(full->length, 65536u);
  EXPECT_EQ(full->offset, 131072u);
}

std::string name_of(const testing::TestParamInfo<Way>& tested) {
  constexpr const char* kCaches[] = {"Writeback", "Writethrough", "None", "DirectSync", "Unsafe"};
  return std::string(tested.param.kind == IoContext::Kind::Uring ? "Uring" : "Threads") + kCaches[static_cast<int>(tested.param.cache)];
}
INSTANTIATE_TEST_SUITE_P(All, Files,
                         testing::Values(Way{IoContext::Kind::Uring, Cache::Writeback}, Way{IoContext::Kind::Uring, Cache::None},
                                         Way{IoContext::Kind::Uring, Cache::Writethrough}, Way{IoContext::Kind::Threads, Cache::Writeback},
                                         Way{IoContext::Kind::Threads, Cache::DirectSync}, Way{IoContext::Kind::Threads, Cache::Unsafe}),
                         name_of);

TEST(FileErrors, SayWhichFileAndWhat) {
  const test::Folder folder;
  const auto context = IoContext::create().value();
  const auto message = [&](const std::string& path, const FileOptions& options = {}) {
    const auto opened = File::open(*context, path, options);
    return opened ? "opened" : opened.error().message;
  };
  EXPECT_EQ(message(folder / "none"), folder / "none" + ": there is no such file");
  EXPECT_EQ(message(folder / ""), folder / "" + ": is a folder, not an image");
  EXPECT_EQ(message(folder / "", {.read_only = true}), folder / "" + ": is a folder, not an image");
  EXPECT_EQ(message("/dev/null"), "/dev/null: is neither a file nor a block device");
  std::ofstream(folder / "image") << "abc";
  auto file = File::open(*context, folder / "image", {.read_only = true}).value();
  const auto written = context->run(write(*std::make_unique<Raw>(std::move(file)), 0, "x", 1));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().os_errno, EROFS);
}

TEST(FileLocks, TwoWritersAreRefused) {
  const test::Folder folder;
  const auto context = IoContext::create().value();
  const std::string path = folder / "image";
  auto first = File::create(*context, path, {}).value();
  const auto second = File::open(*context, path, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::Usage);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
  EXPECT_FALSE(File::open(*context, path, {.read_only = true}));
  EXPECT_FALSE(File::create(*context, path, {}));
  EXPECT_TRUE(File::open(*context, path, {.read_only = true, .sharing = Sharing::ForceShare}));
  first.reset();
  const auto reader = File::open(*context, path, {.read_only = true});
  EXPECT_TRUE(reader);
  EXPECT_TRUE(File::open(*context, path, {.read_only = true})) << "readers do not disturb each other";
  EXPECT_FALSE(File::open(*context, path, {}));
}

TEST(FileLocks, AnImageInUseKeepsItsContents) {
  const test::Folder folder;
  const auto context = IoContext::create().value();
  const std::string path = folder / "image";
  auto first = File::create(*context, path, {}).value();
  ASSERT_TRUE(context->run(write(*first, 0, "precious", 8)));
  EXPECT_FALSE(File::create(*context, path, {}));
  EXPECT_EQ(std::filesystem::file_size(path), 8u);
}

}  // namespace
}  // namespace lodge::block
