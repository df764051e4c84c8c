// The host's side of a serial port or a virtio console: where the guest's output goes and where its input comes from.
//
//   stdio      this process's standard input and output; a terminal becomes raw, with Ctrl-A x to quit
//   null       nothing in, nothing out
//   file:PATH  output into a file, replaced at the start
//   unix:PATH  a listening socket; one peer at a time, which may come, go and come again
//
// Threads: write() and shut_down() from any thread; everything else from the event loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/error.hpp"
#include "base/event_loop.hpp"

namespace lodge::console {

// Who takes the input. space() says how many bytes receive() will take now; the backend reads no more than that
// from the host, so input waits in the pipe and is never lost.
struct InputSink {
  std::function<size_t()> space;
  std::function<void(std::span<const uint8_t>)> receive;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // All bytes; waits for a slow reader until shut_down(). Output that nobody can take is dropped.
  virtual void write(std::span<const uint8_t> bytes) = 0;
  // Connects the input; an empty sink disconnects it (between two boots of the guest).
  virtual void set_sink(InputSink sink) = 0;
  // Lets a write() that waits return.
  virtual void shut_down() {}
  // Of the terminal, as it is now, 0 for what it does not know; any thread. Nothing: there is none.
  struct Size {
    uint16_t columns, rows;
  };
  [[nodiscard]] virtual std::optional<Size> size() const { return std::nullopt; }
};

// `option` names whose line it is in messages: "--serial". `quit` is called when the person at a terminal asks for it (Ctrl-A x).
// ErrorKind::Usage for an unknown kind, or when the file or socket cannot be made.
[[nodiscard]] Result<std::unique_ptr<Backend>> open_backend(std::string_view option, const std::string& specification, EventLoop& loop,
                                                            std::function<void()> quit);

}  // namespace lodge::console
