#include "console/backend.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.hpp"
#include "console/stdio.hpp"
#include "console/unix_socket.hpp"
#include "console/writer.hpp"

namespace lodge::console {

namespace {

class Null final : public Backend {
 public:
  void write(std::span<const uint8_t>) override {}
  void set_sink(InputSink) override {}
};

class File final : public Backend {
 public:
  explicit File(Fd fd) : fd_(std::move(fd)) {}
  void write(std::span<const uint8_t> bytes) override { writer_.write_all(fd_.get(), bytes); }
  void set_sink(InputSink) override {}
  void shut_down() override { writer_.closing(); }

 private:
  Fd fd_;
  Writer writer_;
};

Result<std::unique_ptr<Backend>> open_file(std::string_view option, const std::string& path) {
  Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644));
  if (!fd) return fail(ErrorKind::Usage, "{} file:{}: {}", option, path, os_error("cannot open it").message);
  return std::make_unique<File>(std::move(fd));
}

}  // namespace

Result<std::unique_ptr<Backend>> open_backend(std::string_view option, const std::string& specification, EventLoop& loop,
                                              std::function<void()> quit) {
  if (specification == "stdio") return open_stdio(loop, std::move(quit));
  if (specification == "null") return std::make_unique<Null>();
  if (specification.starts_with("file:") && specification.size() > 5) return open_file(option, specification.substr(5));
  if (specification.starts_with("unix:") && specification.size() > 5) return open_unix_socket(option, specification.substr(5), loop);
  return fail(ErrorKind::Usage, "{}: unknown line '{}': use stdio, null, file:PATH or unix:PATH", option, specification);
}

}  // namespace lodge::console
