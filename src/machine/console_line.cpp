#include "machine/console_line.hpp"

#include <utility>

namespace lodge::machine {

Result<std::unique_ptr<ConsoleLine>> ConsoleLine::open(const std::string& specification, std::function<void()> quit) {
  std::unique_ptr<ConsoleLine> line(new ConsoleLine(TRY(devices::LoopThread::start("console"))));
  line->backend_ =
      TRY(line->thread_->call([&] { return console::open_backend("--console", specification, line->thread_->loop(), std::move(quit)); }));
  return line;
}

ConsoleLine::~ConsoleLine() {
  thread_->call([this] { backend_.reset(); });
}

std::unique_ptr<devices::virtio::Console> ConsoleLine::make_device() const {
  return std::make_unique<devices::virtio::Console>(*thread_, *backend_);
}

}  // namespace lodge::machine
