// The protocol node of an export of an NBD server, through libnbd.
//
// A server that goes away: requests in flight fail (EIO), and so do later ones until it can be reached again; each new request tries,
// but for a second after it was tried in vain. Nothing is written twice without its request having failed in between.
#pragma once

#include <libnbd.h>

#include <chrono>
#include <memory>

#include "block/file.hpp"
#include "block/io_context.hpp"
#include "block/node.hpp"

namespace lodge::block {

class Nbd final : public Node {
 public:
  // Names that lead here: URIs (nbd://host:port/export, nbd+unix:///export?socket=path, nbds://...) and QEMU's
  // nbd:host:port[:exportname=x], nbd:unix:path[:exportname=x].
  [[nodiscard]] static bool is_name(std::string_view name);
  // The name as a URI. ErrorKind::Usage.
  static Result<std::string> uri_of(const std::string& name);
  // `cache`, `discard`, `read_only` of the options have their meaning; the server sees to locks.
  static Task<Result<std::unique_ptr<Nbd>>> open(IoContext& context, std::string name, const FileOptions& options);

  [[nodiscard]] std::string_view kind() const override { return "nbd"; }
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return options_.read_only; }
  [[nodiscard]] Limits limits() const override { return {.request_alignment = minimum_}; }
  Task<Result<>> submit(const Request& request) override;
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override;
  Task<Result<>> resize(uint64_t bytes) override;
  Task<Result<>> close() override;

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };
  using Handle = std::unique_ptr<nbd_handle, Close>;
  struct Command;  // one in flight
  struct Abilities {
    bool flush = false, fua = false, trim = false, zero = false, extents = false;
  };

  Nbd(IoContext& context, std::string name, std::string uri, const FileOptions& options);
  Task<Result<>> connect();
  Task<Result<>> connected();  // again, if it must be
  Task<Result<>> transfer(bool writing, uint64_t offset, const Buffers& buffers, bool fua);
  Task<Result<>> transfer_part(bool writing, uint64_t offset, const Buffers& part, bool fua);
  Task<Result<>> zero_or_trim(const Request& request);
  Task<> pump_in();
  Task<> pump_out();
  void push_out();

  IoContext& context_;
  const std::string uri_;
  FileOptions options_;
  Handle handle_;
  Fd socket_;
  Abilities can_;
  uint64_t size_ = 0, largest_ = 0;  // largest_: bytes of a request
  uint32_t minimum_ = 1;
  unsigned in_flight_ = 0;
  bool pumping_in_ = false, pumping_out_ = false;
  AsyncMutex connecting_;
  WaitQueue pump_ended_;
  std::optional<std::chrono::steady_clock::time_point> last_failure_;  // to connect again
};

}  // namespace lodge::block
