#include "block/raw.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include "block/format.hpp"

namespace lodge::block {

Task<Result<>> Raw::submit(const Request& request) {
  if (auto good = check_request(*this, request); !good) return failed(std::move(good).error());
  if (request.compressed) return failed(io_failure(*this, "raw images have no compression", ENOTSUP).error());
  if (guessed_ && request.operation == Operation::Write && request.offset < kSector && request.length) return write_first_sector(request);
  return file_->submit(request);
}

Task<Result<>> Raw::write_first_sector(const Request& request) {
  std::array<std::byte, kSector> sector{};
  const uint64_t length = std::min(kSector - request.offset, request.length);
  if (length < kSector) CO_TRY(block::read(*file_, 0, sector.data(), std::min(kSector, size())));
  request.buffers.copy_to(0, sector.data() + request.offset, length);
  if (const auto looks = recognise(sector); !looks.empty())
    co_return io_failure(*this,
                         fmt::format("a write would make the image look like a {} one, and its format was never given; open it with "
                                     "format=raw if that is what it is",
                                     looks),
                         EPERM);
  co_return co_await file_->submit(request);
}

}  // namespace lodge::block
