// Images with anything in them: recognised, opened, read, mapped, checked, repaired, written, snapshotted. Whatever the tables say, each
// request ends, with success or with an error; and an image that its own check calls sound keeps what is written to it, and stays sound.
//
// An input is a count of two bytes, so many bytes that choose what is done, and the file.
#include "block/qcow2/image.hpp"

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/format.hpp"
#include "block/io_context.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace block;
using qcow2::Image;

// A file in memory on a disk that is soon full.
class SmallFile final : public Node {
 public:
  static constexpr uint64_t kMost = 4 << 20;
  explicit SmallFile(std::vector<std::byte>& bytes) : Node("image"), bytes_(bytes) {}

  [[nodiscard]] std::string_view kind() const override { return "file"; }
  [[nodiscard]] uint64_t size() const override { return bytes_.size(); }
  [[nodiscard]] bool read_only() const override { return false; }
  Task<Result<>> submit(const Request& request) override {
    co_await IoContext::yield();
    const uint64_t end = request.offset + request.length;
    require(end >= request.offset, "a request around the end of all numbers");
    switch (request.operation) {
      case Operation::Read: {
        const uint64_t there = request.offset < size() ? std::min(request.length, size() - request.offset) : 0;
        if (there) request.buffers.copy_from(0, &bytes_[request.offset], there);
        request.buffers.fill(there, request.length - there, 0);
        break;
      }
      case Operation::Write:
      case Operation::WriteZeroes:
        if (request.length == 0) break;
        if (end > kMost) co_return io_failure(*this, "write", ENOSPC);
        if (end > size()) bytes_.resize(end);
        if (request.operation == Operation::Write)
          request.buffers.copy_to(0, &bytes_[request.offset], request.length);
        else
          std::memset(&bytes_[request.offset], 0, request.length);
        break;
      case Operation::Discard:
      case Operation::Flush: break;
    }
    co_return Result<>{};
  }
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override {
    co_return Extent{.length = length, .present = true, .data = true, .offset = offset};
  }
  Task<Result<>> resize(uint64_t bytes) override {
    if (bytes > kMost) co_return io_failure(*this, "resize", ENOSPC);
    bytes_.resize(bytes);
    co_return Result<>{};
  }
  Task<Result<>> close() override { co_return Result<>{}; }

 private:
  std::vector<std::byte>& bytes_;
};

class Session {
 public:
  Session(IoContext& context, std::vector<std::byte> bytes) : context_(context), bytes_(std::move(bytes)) {}

  void run(Input input) {
    static_cast<void>(recognise(std::span(bytes_).first(std::min<size_t>(bytes_.size(), kSector))));
    const auto how = input.take<uint8_t>();
    if (!open({.read_only = (how & 3) == 3, .check = (how & 12) == 12, .metadata_bytes = 64 * 4096})) return;
    const auto found =
        must_end(image_->check(how & 16 ? (how & 32 ? Image::Repair::All : Image::Repair::Leaks) : Image::Repair::None, nullptr));
    if (found && (how & 48) == 48 && found->check_errors == 0 && !image_->read_only() && found->corruptions_fixed == found->corruptions)
      reopen();
    if (!image_) return;
    // Snapshots may lie about their own tables, which the check of one that is whole has seen.
    const auto second = must_end(image_->check(Image::Repair::None, nullptr));
    sound_ = second && second->corruptions == 0 && second->leaks == 0 && second->check_errors == 0 && image_->backing() == nullptr &&
             !image_->read_only();
    for (unsigned steps = 0; steps < 64 && !input.empty() && image_; ++steps) step(input);
    if (!image_) return;
    if (sound_) {
      const auto last = must_end(image_->check(Image::Repair::None, nullptr));
      require(last && last->corruptions == 0, "a sound image that was damaged by use");
    }
    static_cast<void>(must_end(image_->close()));
    image_.reset();
  }

 private:
  template <typename T>
  Result<T> must_end(Task<Result<T>> task) {
    return context_.run(std::move(task));
  }
  bool open(const qcow2::OpenOptions& options) {
    auto opened = must_end(Image::open(context_, std::make_unique<SmallFile>(bytes_), options));
    if (!opened) {
      require(!opened.error().message.empty(), "an error without a message");
      return false;
    }
    image_ = std::move(*opened);
    return true;
  }
  void reopen() {
    static_cast<void>(must_end(image_->close()));
    image_.reset();
    open({.metadata_bytes = 64 * 4096});
  }
  void step(Input& input) {
    const auto kind = input.take<uint8_t>();
    if (image_->size() == 0) return;
    const uint64_t offset = (input.take<uint32_t>() * (kind & 0x80 ? uint64_t{0x10000} : 64)) % image_->size();
    const uint64_t length = std::min<uint64_t>(1 + input.take<uint16_t>(), image_->size() - offset);
    std::vector<std::byte> data(length);
    switch (kind % 12) {
      case 0:
      case 1: static_cast<void>(must_end(read(*image_, offset, data.data(), length))); break;
      case 2: static_cast<void>(must_end(image_->map(offset, length))); break;
      case 3:
      case 4:
      case 5: {
        std::memset(data.data(), kind | 1, length);
        if (must_end(write(*image_, offset, data.data(), length)) && sound_) {
          std::vector<std::byte> back(length);
          require(must_end(read(*image_, offset, back.data(), length)).has_value() && back == data, "what was written does not read back");
        }
        break;
      }
      case 6:
        if (must_end(write_zeroes(*image_, offset, length, kind & 16)) && sound_) {
          require(must_end(read(*image_, offset, data.data(), length)).has_value() && data == std::vector<std::byte>(length),
                  "zeros that are not");
        }
        break;
      case 7: static_cast<void>(must_end(discard(*image_, offset, length))); break;
      case 8: static_cast<void>(must_end(flush(*image_))); break;
      case 9: {
        const std::string name(1, static_cast<char>('a' + kind % 3));
        switch (kind / 12 % 3) {
          case 0: static_cast<void>(must_end(image_->create_snapshot(name))); break;
          case 1: static_cast<void>(must_end(image_->apply_snapshot(name))); break;
          default: static_cast<void>(must_end(image_->delete_snapshot(name)));
        }
        break;
      }
      case 10: static_cast<void>(must_end(image_->resize(input.take<uint16_t>() * kSector))); break;
      default: reopen(); break;
    }
  }

  IoContext& context_;
  std::vector<std::byte> bytes_;
  std::unique_ptr<Image> image_;
  bool sound_ = false;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lodge;
  static const auto context = std::move(*block::IoContext::create(block::IoContext::Kind::Threads));
  fuzz::Input input({data, size});
  const auto steps = input.take_bytes(input.take<uint16_t>());
  const auto file = input.take_bytes(size);
  const auto bytes = std::as_bytes(file);
  fuzz::Session(*context, {bytes.begin(), bytes.end()}).run(fuzz::Input(steps));
  return 0;
}
