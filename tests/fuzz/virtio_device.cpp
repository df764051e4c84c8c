// Whole virtio devices behind their PCI function: a driver that negotiates, configures and fills queues as it likes. Nothing outside guest
// memory is touched, every reset ends, and afterwards the device holds nothing.
#include <poll.h>
#include <sys/eventfd.h>

#include <deque>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "block/memory_node.hpp"
#include "devices/virtio/balloon/balloon.hpp"
#include "devices/virtio/block/block.hpp"
#include "devices/virtio/console/console.hpp"
#include "devices/virtio/entropy/entropy.hpp"
#include "devices/virtio/net/network.hpp"
#include "devices/virtio/pci_transport.hpp"
#include "virtio_ring.hpp"
#include "wire.hpp"

namespace lodge::fuzz {
namespace {

namespace virtio = devices::virtio;
namespace storage = devices::storage;
using devices::IoThread;
using devices::Worker;

// The worker's thread is this one.
class SameThread final : public Worker {
 public:
  void post(std::function<void()> work) override {
    posted_.push_back(std::move(work));
    if (at_once) run();
  }
  [[nodiscard]] std::unique_ptr<Watch> watch(int eventfd, std::function<void()> ready) override {
    eventfd_ = eventfd;
    ready_ = std::move(ready);
    struct Ends final : Watch {
      explicit Ends(std::function<void()>& what) : what_(what) {}
      ~Ends() override { what_ = nullptr; }
      Ends(const Ends&) = delete;
      Ends& operator=(const Ends&) = delete;
      std::function<void()>& what_;
    };
    return std::make_unique<Ends>(ready_);
  }
  void run() {
    while (!posted_.empty()) {
      const auto work = std::move(posted_.front());
      posted_.pop_front();
      work();
    }
    pollfd rung{eventfd_, POLLIN, 0};
    if (!ready_ || poll(&rung, 1, 0) != 1) return;
    eventfd_t count = 0;
    eventfd_read(eventfd_, &count);
    ready_();
  }
  bool at_once = false;

 private:
  std::deque<std::function<void()>> posted_;
  int eventfd_ = -1;
  std::function<void()> ready_;
};

struct Line final : console::Backend {
  void write(std::span<const uint8_t> bytes) override {
    for (const uint8_t byte : bytes) sum += byte;
  }
  void set_sink(console::InputSink now) override { sink = std::move(now); }
  [[nodiscard]] std::optional<Size> size() const override { return Size{80, 25}; }
  console::InputSink sink;
  uint64_t sum = 0;
};

struct Port final : devices::pci::FunctionPort {
  void send_message(uint64_t, uint32_t) override {}
  void set_intx(bool) override {}
};

class Guest {
 public:
  void run(Input input) {
    memory_.clear();
    const auto kind = input.take<uint8_t>();
    const auto shape = input.take<uint8_t>();
    transitional_ = (kind & 0x80) != 0;
    make((kind & 0x7f) % 5, input);
    transport_->connect(port_);
    settle();
    transport_->write_config(4, 2, 7);
    set_up(shape, input);
    while (!input.empty()) step(input);
    finish();
  }

 private:
  void make(unsigned kind, Input& input) {
    std::unique_ptr<virtio::Device> device;
    queues_ = 1;
    switch (kind) {
      case 0: device = std::make_unique<virtio::Entropy>(worker_); break;
      case 1: {
        auto made = std::make_unique<virtio::Balloon>(worker_, 3);
        balloon_ = made.get();
        device = std::move(made);
        queues_ = 4;
        break;
      }
      case 2:
        device = std::make_unique<virtio::Console>(worker_, line_);
        queues_ = 2;
        break;
      case 3:
        device = std::make_unique<virtio::Network>("card", worker_, wire_, virtio::NetworkOptions{.mac = {2, 0, 0, 0, 0, 1}, .pairs = 2});
        queues_ = 5;
        break;
      default: {
        static const auto thread = std::move(*IoThread::start("disk"));
        io_ = thread.get();
        auto disk = std::make_shared<block::MemoryDisk>();
        disk->bytes.resize(64 << 10);
        const auto fails = input.take<uint8_t>();
        unsigned count = 0;
        disk->fault = [fails, count](const block::Request&) mutable { return fails != 0 && ++count % fails == 0 ? EIO : 0; };
        node_ = std::make_unique<block::MemoryNode>(std::move(disk));
        disk_ = std::make_unique<storage::Disk>("disk", *io_, *node_, storage::DiskOptions{.serial = "1"});
        disk_->set_machine({.pause = [](const std::string&) {}, .resume = [] {}});
        device = std::make_unique<virtio::Block>(*disk_, virtio::BlockOptions{.queues = 2, .queue_entries = 64});
        queues_ = 2;
      }
    }
    transport_ = std::move(*virtio::PciTransport::create(std::move(device), *memory_.guest, nullptr_doorbells,
                                                         {.transitional = transitional_, .packed = true}));
  }
  static std::shared_ptr<void> nullptr_doorbells(uint64_t, int) { return nullptr; }

  // All that was posted is done, and all that was rung.
  void settle() {
    if (io_)
      // One way there and back, which takes longest, for all that goes on in several turns of the loop.
      io_->call([]() -> block::Task<int> {
        for (int turn = 0; turn < 4; ++turn) co_await block::IoContext::yield();
        co_return 0;
      });
    else
      worker_.run();
  }
  [[nodiscard]] unsigned bar() const { return transitional_ ? 4 : 0; }
  void write(uint64_t at, unsigned size, uint64_t value) { transport_->write_bar(bar(), at, size, value); }
  void write_and_settle(uint64_t at, unsigned size, uint64_t value) {
    write(at, size, value);
    settle();
  }
  // As a driver should, up to its first buffers; `shape` leaves features out.
  void set_up(uint8_t shape, Input& input) {
    const bool packed = shape & 1;
    uint64_t features = input.take<uint64_t>();
    write(0x14, 1, 3);
    for (const unsigned half : {0u, 1u}) {
      write(0, 4, half);
      const uint64_t offered = transport_->read_bar(bar(), 4, 4);
      uint64_t wanted = offered & (shape & 8 ? features >> (32 * half) : ~uint64_t{0});
      if (half == 1) wanted = (wanted | 1) & ~uint64_t{packed ? 0u : 4u};
      write(8, 4, half);
      write(0xc, 4, wanted);
      if (half == 0) indirect_ = wanted >> 28 & 1;
      if (half == 0) event_ = wanted >> 29 & 1;
    }
    write(0x14, 1, 0xb);
    for (unsigned queue = 0; queue < queues_; ++queue) {
      rings_.emplace_back(0x4000 + queue * Ring::kBytes, 16, packed, event_, indirect_);
      const auto& setup = rings_.back().setup();
      write(0x16, 2, queue);
      write(0x18, 2, 16);
      write(0x20, 8, setup.descriptors);
      write(0x28, 8, setup.driver_area);
      write(0x30, 8, setup.device_area);
      write(0x1c, 2, 1);
    }
    if (!(shape & 0x10)) write(0x14, 1, 0xf);
    settle();  // once: a disk's thread is far away
  }
  void step(Input& input) {
    switch (input.take<uint8_t>() % 16) {
      case 0:
      case 1:
      case 2:
      case 3: rings_[input.take<uint8_t>() % rings_.size()].offer(memory_, input); break;
      case 4:
      case 5:
      case 6: write_and_settle(0x3000, 2, 0); break;
      case 7:
      case 8: memory_.put(input.take<uint16_t>() * uint64_t{4}, input.take_bytes(input.take<uint8_t>())); break;
      case 9: {
        const auto at = input.take<uint16_t>() % 0x3c, size = 1 << input.take<uint8_t>() % 4;
        write_and_settle(at, static_cast<unsigned>(size), input.take<uint64_t>());
        break;
      }
      case 10: {
        const auto at = input.take<uint16_t>() % 0x8000, size = 1 << input.take<uint8_t>() % 4;
        if (transitional_ && at >= 0x7000) {
          old_driver(at % 32, input);
          break;
        }
        static_cast<void>(transport_->read_bar(bar(), at, static_cast<unsigned>(size)));
        write_and_settle(at, static_cast<unsigned>(size), input.take<uint64_t>());
        break;
      }
      case 11: {
        const unsigned at = input.take<uint8_t>() & ~3u;
        static_cast<void>(transport_->read_config(at, 4));
        transport_->write_config(at, 4, input.take<uint32_t>());
        settle();
        break;
      }
      case 12:
      case 13: happen(input); break;
      case 14:  // a queue's reset, and back
        write(0x16, 2, input.take<uint8_t>() % (queues_ + 1));
        write_and_settle(0x3a, 2, 1);
        write_and_settle(0x1c, 2, 1);
        break;
      default:
        write_and_settle(0x14, 1, 0);
        require(transport_->read_bar(bar(), 0x14, 1) == 0 || io_, "a reset that does not end");
        rings_.clear();
        set_up(input.take<uint8_t>(), input);
    }
  }
  // A register of the interface before virtio 1.0, most often one that is there.
  void old_driver(unsigned at, Input& input) {
    const unsigned size = at < 12 ? 4 : at < 18 ? 2 : 1;
    static_cast<void>(transport_->read_bar(0, at, size));
    const auto value = input.take<uint32_t>();
    transport_->write_bar(0, at, size, at == 8 ? value % 64 : value);
    settle();
  }
  // Something on the host's side.
  void happen(Input& input) {
    if (wire_.card) {
      const std::string frame(input.take<uint16_t>() % 9000, 'x');
      wire_.full = input.take<uint8_t>() & 1;
      const unsigned pair = input.take<uint8_t>() % 3;
      static_cast<void>(wire_.card->receive(pair, {}, std::as_bytes(std::span(frame))));
      wire_.card->received(pair);
      wire_.card->sendable(pair);
    }
    if (line_.sink.space) {
      const std::vector<uint8_t> typed(std::min<size_t>(line_.sink.space(), input.take<uint16_t>()), 'y');
      if (!typed.empty()) line_.sink.receive(typed);
    }
    if (balloon_) {
      balloon_->set_target(input.take<uint32_t>());
      static_cast<void>(balloon_->ask_statistics([](const virtio::MemoryStatistics&) {}));
    }
    settle();
  }
  void finish() {
    worker_.at_once = true;
    transport_->shut_down();
    require(memory_.open == 0, "a write that never ends");
    transport_.reset();
    if (!io_) return;
    std::promise<void> done;
    io_->post([&] {
      disk_.reset();
      node_.reset();
      done.set_value();
    });
    done.get_future().wait();
  }

  static inline Memory memory_;
  SameThread worker_;
  Wire wire_{{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true}};
  Line line_;
  Port port_;
  IoThread* io_ = nullptr;
  std::unique_ptr<block::Node> node_;
  std::unique_ptr<storage::Disk> disk_;
  virtio::Balloon* balloon_ = nullptr;
  std::unique_ptr<virtio::PciTransport> transport_;
  std::deque<Ring> rings_;
  unsigned queues_ = 1;
  bool indirect_ = false, event_ = false, transitional_ = false;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lodge::log::set_level(lodge::log::Level::Error);
  lodge::fuzz::Guest().run(lodge::fuzz::Input({data, size}));
  return 0;
}
