#include "block/raw.hpp"

#include <cerrno>

namespace lodge::block {

Task<Result<>> Raw::submit(const Request& request) {
  if (auto good = check_request(*this, request); !good) return failed(std::move(good).error());
  if (request.compressed) return failed(io_failure(*this, "raw images have no compression", ENOTSUP).error());
  return file_->submit(request);
}

}  // namespace lodge::block
