// For tests: a protocol node in memory, which can fail as a disk does and keeps a diary of what reached it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/io_context.hpp"
#include "block/node.hpp"

namespace lodge::block {

// The disk outlives the node, as a file outlives the process that has it open.
struct MemoryDisk {
  std::vector<std::byte> bytes;
  // What happened since the diary was begun: writes with their data, and flushes.
  struct Event {
    bool flush;
    uint64_t offset;
    std::vector<std::byte> data;
  };
  bool keeps_diary = false;
  std::vector<Event> diary;
  // Asked before each request: an errno for it, or 0. Of a write that fails, some of it may have been done.
  std::function<int(const Request&)> fault;
};

class MemoryNode final : public Node {
 public:
  explicit MemoryNode(std::shared_ptr<MemoryDisk> disk, std::string name = "memory") : Node(std::move(name)), disk_(std::move(disk)) {}

  [[nodiscard]] std::string_view kind() const override { return "memory"; }
  [[nodiscard]] uint64_t size() const override { return disk_->bytes.size(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] Limits limits() const override { return {.grows_with_zeroes = true}; }
  Task<Result<>> submit(const Request& request) override {
    // As a disk does it: not at once, so that requests in flight meet.
    co_await IoContext::yield();
    const int error = disk_->fault ? disk_->fault(request) : 0;
    switch (request.operation) {
      case Operation::Read: {
        if (error) break;
        const uint64_t there = request.offset < size() ? std::min(request.length, size() - request.offset) : 0;
        if (there) request.buffers.copy_from(0, &disk_->bytes[request.offset], there);
        request.buffers.fill(there, request.length - there, 0);
        break;
      }
      case Operation::Write: {
        std::vector<std::byte> data(request.length);
        request.buffers.copy_to(0, data.data(), data.size());
        if (error) {  // a short write, of whole sectors
          const uint64_t end = (request.offset + data.size() / 2) / kSector * kSector;
          data.resize(end > request.offset ? end - request.offset : 0);
        }
        put(request.offset, std::move(data));
        break;
      }
      case Operation::WriteZeroes:
        if (!error) put(request.offset, std::vector<std::byte>(request.length));
        break;
      case Operation::Discard:
        // Contents of no use: whatever they are now.
        if (!error && request.length)
          put(request.offset, std::vector<std::byte>(std::min(request.length, size() - request.offset), std::byte{0xdd}));
        break;
      case Operation::Flush:
        if (!error && disk_->keeps_diary) disk_->diary.push_back({true, 0, {}});
        break;
    }
    if (error) co_return io_failure(*this, "injected", error);
    co_return Result<>{};
  }
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override {
    co_return Extent{.length = length, .present = true, .data = true, .offset = offset};
  }
  Task<Result<>> resize(uint64_t bytes) override {
    if (disk_->keeps_diary && bytes > size()) disk_->diary.push_back({false, size(), std::vector<std::byte>(bytes - size())});
    disk_->bytes.resize(bytes);
    co_return Result<>{};
  }
  Task<Result<>> close() override { co_return Result<>{}; }

 private:
  void put(uint64_t offset, std::vector<std::byte> data) {
    if (data.empty()) return;
    if (offset + data.size() > size()) disk_->bytes.resize(offset + data.size());
    std::memcpy(&disk_->bytes[offset], data.data(), data.size());
    if (disk_->keeps_diary) disk_->diary.push_back({false, offset, std::move(data)});
  }
  std::shared_ptr<MemoryDisk> disk_;
};

}  // namespace lodge::block
