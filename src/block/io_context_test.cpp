#include "block/io_context.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <array>
#include <string>

#include "block/buffers.hpp"

namespace lodge::block {
namespace {

// Both ways of doing I/O; a kernel without io_uring leaves one.
class Contexts : public testing::TestWithParam<IoContext::Kind> {
 protected:
  void SetUp() override {
    auto made = IoContext::create(GetParam());
    if (!made && GetParam() == IoContext::Kind::Uring) GTEST_SKIP() << made.error().message;
    ASSERT_TRUE(made) << made.error().message;
    context_ = std::move(*made);
    file_.reset(memfd_create("test", MFD_CLOEXEC));
    ASSERT_TRUE(file_);
  }
  std::unique_ptr<IoContext> context_;
  Fd file_;
};

Task<int64_t> write_text(IoContext& context, int fd, std::string text, uint64_t offset) {
  const std::array vectors{iovec{text.data(), text.size()}};
  co_return co_await context.write(fd, vectors, offset);
}

Task<std::string> read_text(IoContext& context, int fd, uint64_t offset, uint64_t size, bool try_at_once) {
  std::string text(size, '\0');
  const std::array vectors{iovec{text.data(), text.size()}};
  const int64_t got = co_await context.read(fd, vectors, offset, try_at_once);
  co_return got < 0 ? "failed" : text.substr(0, static_cast<uint64_t>(got));
}

TEST_P(Contexts, ReadWhatWasWritten) {
  EXPECT_EQ(context_->run(write_text(*context_, file_.get(), "hello", 3)), 5);
  EXPECT_EQ(context_->run(read_text(*context_, file_.get(), 3, 5, false)), "hello");
  EXPECT_EQ(context_->run(read_text(*context_, file_.get(), 3, 5, true)), "hello");
  EXPECT_EQ(context_->run(read_text(*context_, file_.get(), 8, 5, true)), "") << "the end of the file";
  EXPECT_EQ(context_->run(read_text(*context_, -1, 0, 5, true)), "failed");
}

TEST_P(Contexts, ManyCallsAtOnce) {
  constexpr unsigned kCalls = 2000;  // more than the ring holds
  const auto all = [](IoContext& context, int fd) -> Task<Result<>> {
    TaskGroup group(kCalls);
    const auto one = [](IoContext& in, int file, unsigned i) -> Task<Result<>> {
      const int64_t done = co_await write_text(in, file, std::string(16, static_cast<char>('a' + i % 26)), i * 16);
      if (done != 16) co_return fail(ErrorKind::Internal, "call {}: {}", i, done);
      co_return Result<>{};
    };
    for (unsigned i = 0; i < kCalls; ++i) co_await group.add(one(context, fd, i));
    co_return co_await group.finish();
  };
  const auto done = context_->run(all(*context_, file_.get()));
  ASSERT_TRUE(done) << done.error().message;
  for (unsigned i = 0; i < kCalls; ++i)
    EXPECT_EQ(context_->run(read_text(*context_, file_.get(), i * 16, 16, true)), std::string(16, static_cast<char>('a' + i % 26)));
}

TEST_P(Contexts, OffloadedWorkRunsElsewhereAndComesBack) {
  const auto here = std::this_thread::get_id();
  const auto task = [](IoContext& context) -> Task<std::pair<std::thread::id, std::thread::id>> {
    std::thread::id worker;
    co_await context.offload([&] { worker = std::this_thread::get_id(); });
    co_return std::pair(worker, std::this_thread::get_id());
  };
  const auto [worker, after] = context_->run(task(*context_));
  EXPECT_NE(worker, here);
  EXPECT_EQ(after, here);
}

TEST_P(Contexts, PostedWorkAndStopFromAnotherThread) {
  int done = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) context_->post([&] { ++done; });
    context_->stop();
  });
  context_->run();
  other.join();
  EXPECT_EQ(done, 1000);
}

TEST_P(Contexts, PollWaitsForADescriptor) {
  const Fd event(eventfd(0, EFD_CLOEXEC));
  const auto task = [](IoContext& context, int fd) -> Task<int64_t> { co_return co_await context.poll(fd, POLLIN); };
  std::thread other([&] {
    const uint64_t one = 1;
    EXPECT_EQ(::write(event.get(), &one, sizeof one), 8);
  });
  EXPECT_EQ(context_->run(task(*context_, event.get())), POLLIN);
  other.join();
}

INSTANTIATE_TEST_SUITE_P(All, Contexts, testing::Values(IoContext::Kind::Uring, IoContext::Kind::Threads),
                         [](const auto& tested) { return tested.param == IoContext::Kind::Uring ? "Uring" : "Threads"; });

TEST(Tasks, GroupKeepsItsLimitAndTheFirstError) {
  const auto context = IoContext::create().value();
  unsigned running = 0, most = 0;
  const auto one = [&](unsigned i) -> Task<Result<>> {
    most = std::max(most, ++running);
    for (unsigned n = 0; n < 3; ++n) co_await IoContext::yield();
    --running;
    if (i >= 5) co_return fail(ErrorKind::Internal, "number {}", i);
    co_return Result<>{};
  };
  const auto all = [&]() -> Task<Result<>> {
    TaskGroup group(4);
    for (unsigned i = 0; i < 10; ++i) co_await group.add(one(i));
    co_return co_await group.finish();
  };
  const auto result = context->run(all());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "number 5");
  EXPECT_EQ(most, 4u);
  EXPECT_EQ(running, 0u);
}

TEST(Tasks, MutexIsHeldAcrossWaitsInOrder) {
  const auto context = IoContext::create().value();
  AsyncMutex mutex;
  std::string order;
  const auto one = [&](char name) -> Task<Result<>> {
    const auto hold = co_await mutex.lock();
    order += name;
    co_await IoContext::yield();
    order += name;
    co_return Result<>{};
  };
  const auto all = [&]() -> Task<Result<>> {
    TaskGroup group(9);
    for (const char name : {'a', 'b', 'c'}) co_await group.add(one(name));
    co_return co_await group.finish();
  };
  ASSERT_TRUE(context->run(all()));
  EXPECT_EQ(order, "aabbcc");
  EXPECT_FALSE(mutex.held());
}

TEST(Tasks, LongLoopsKeepTheStackFlat) {
  const auto context = IoContext::create().value();
  const auto nothing = []() -> Task<int> { co_return 1; };
  const auto loop = [&]() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 1'000'000; ++i) sum += co_await nothing();
    co_return sum;
  };
  EXPECT_EQ(context->run(loop()), 1'000'000);
}

TEST(BufferLists, SliceCopyAndCompare) {
  std::string a = "abcd", b = "efgh", c = "ijkl", d = "mnop", e = "qrst", f = "uvwx";
  Buffers buffers;
  for (std::string* part : {&a, &b, &c, &d, &e, &f}) buffers.append(part->data(), part->size());
  ASSERT_EQ(buffers.size(), 24u);
  EXPECT_EQ(buffers.vectors().size(), 6u);
  std::string text(11, '.');
  buffers.copy_to(3, text.data(), 11);
  EXPECT_EQ(text, "defghijklmn");
  const Buffers middle = buffers.slice(6, 12);
  EXPECT_EQ(middle.size(), 12u);
  EXPECT_EQ(middle.vectors().size(), 4u);
  middle.fill(1, 10, 0);
  EXPECT_EQ(b, std::string("efg\0", 4));
  EXPECT_EQ(e, std::string("\0rst", 4));
  EXPECT_FALSE(middle.all_zero());
  EXPECT_TRUE(buffers.slice(7, 10).all_zero());
  buffers.copy_from(2, "12345", 5);
  EXPECT_EQ(a + b, std::string("ab12345\0", 8));
  Buffers joined;
  joined.append(text.data(), 4);
  joined.append(text.data() + 4, 7);
  EXPECT_EQ(joined.vectors().size(), 1u) << "neighbours are one range";
}

TEST(BufferLists, ZeroIsFoundAtEveryPlace) {
  for (const size_t size : {0u, 1u, 15u, 16u, 17u, 100u, 4096u}) {
    std::string data(size, '\0');
    EXPECT_TRUE(is_zero(data.data(), size));
    for (size_t i = 0; i < size; ++i) {
      data[i] = 1;
      EXPECT_FALSE(is_zero(data.data(), size)) << size << " " << i;
      data[i] = 0;
    }
  }
}

}  // namespace
}  // namespace lodge::block
