// The raw format: the bytes as they are, or a part of them.
#pragma once

#include <memory>

#include "block/node.hpp"

namespace lodge::block {

class Raw final : public Node {
 public:
  explicit Raw(std::unique_ptr<Node> file) : Node(file->name()), file_(std::move(file)) {}

  [[nodiscard]] uint64_t size() const override { return file_->size(); }
  [[nodiscard]] bool read_only() const override { return file_->read_only(); }
  [[nodiscard]] Limits limits() const override { return file_->limits(); }
  [[nodiscard]] std::optional<uint64_t> allocated_size() const override { return file_->allocated_size(); }
  Task<Result<>> submit(const Request& request) override;
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override { return file_->map(offset, length); }
  Task<Result<>> resize(uint64_t bytes) override { return file_->resize(bytes); }
  Task<Result<>> close() override { return file_->close(); }

 private:
  std::unique_ptr<Node> file_;
};

}  // namespace lodge::block
