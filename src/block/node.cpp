#include "block/node.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

namespace lodge::block {

Task<Result<>> read(Node& node, uint64_t offset, void* to, uint64_t length) {
  const Request request(Operation::Read, offset, Buffers(to, length));
  co_return co_await node.submit(request);
}

Task<Result<>> write(Node& node, uint64_t offset, const void* from, uint64_t length) {
  const Request request(Operation::Write, offset, Buffers(const_cast<void*>(from), length));
  co_return co_await node.submit(request);
}

Task<Result<>> write_zeroes(Node& node, uint64_t offset, uint64_t length, bool unmap) {
  Request request(Operation::WriteZeroes, offset, length);
  request.unmap = unmap;
  co_return co_await node.submit(request);
}

Task<Result<>> write_zeroes_as_data(Node& node, uint64_t offset, uint64_t length) {
  static const std::vector<std::byte> zeroes(1 << 20);
  for (uint64_t done = 0; done < length;) {
    const uint64_t now = std::min<uint64_t>(zeroes.size(), length - done);
    CO_TRY(write(node, offset + done, zeroes.data(), now));
    done += now;
  }
  co_return Result<>{};
}

Task<Result<>> discard(Node& node, uint64_t offset, uint64_t length) {
  const Request request(Operation::Discard, offset, length);
  co_return co_await node.submit(request);
}

Task<Result<>> flush(Node& node) {
  const Request request(Operation::Flush, 0, uint64_t{0});
  co_return co_await node.submit(request);
}

Task<Result<>> failed(Error error) { co_return std::unexpected(std::move(error)); }

std::unexpected<Error> io_failure(const Node& node, std::string_view what, int error) {
  return os_fail(fmt::format("{}: {}", node.name(), what), error);
}

Result<> check_request(const Node& node, const Request& request) {
  if (request.operation == Operation::Flush) return {};
  if (request.operation != Operation::Read && node.read_only()) return io_failure(node, "cannot be written", EROFS);
  if (request.offset > node.size() || request.length > node.size() - request.offset)
    return io_failure(node, fmt::format("request at {:#x}, {} bytes, is beyond the end", request.offset, request.length), EINVAL);
  return {};
}

}  // namespace lodge::block
