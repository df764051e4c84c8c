// The raw format: the bytes as they are.
#pragma once

#include <memory>

#include "block/node.hpp"

namespace lodge::block {

class Raw final : public Node {
 public:
  // `guessed`: nobody said that it is raw, it only looked like no other format. Its first sector then cannot be made to look like one:
  // otherwise the guest could make whoever opens the image next take it for an overlay over a file of the host.
  explicit Raw(std::unique_ptr<Node> file, bool guessed = false) : Node(file->name()), file_(std::move(file)), guessed_(guessed) {}

  [[nodiscard]] std::string_view kind() const override { return "raw"; }
  [[nodiscard]] Node* file() const override { return file_.get(); }
  [[nodiscard]] uint64_t size() const override { return file_->size(); }
  [[nodiscard]] bool read_only() const override { return file_->read_only(); }
  [[nodiscard]] Limits limits() const override { return file_->limits(); }
  [[nodiscard]] std::optional<uint64_t> allocated_size() const override { return file_->allocated_size(); }
  Task<Result<>> submit(const Request& request) override;
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override { return file_->map(offset, length); }
  Task<Result<>> resize(uint64_t bytes) override { return file_->resize(bytes); }
  Task<Result<>> close() override { return file_->close(); }

 private:
  Task<Result<>> write_first_sector(const Request& request);
  std::unique_ptr<Node> file_;
  const bool guessed_;
};

}  // namespace lodge::block
