#include "engine/soft/irqchip/spinlock.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint32_t kSpinsBeforeRelax = 128;
std::atomic<void (*)()> spin_relax{nullptr};

}  // namespace

void set_spin_relax(void (*relax)()) { spin_relax.store(relax, std::memory_order_release); }

void Spinlock::lock() {
  uint32_t spins = 0;
  while (locked_.exchange(1, std::memory_order_acquire) != 0) {
    while (locked_.load(std::memory_order_relaxed) != 0) {
      __builtin_ia32_pause();
      if (++spins % kSpinsBeforeRelax != 0) continue;
      if (auto* relax = spin_relax.load(std::memory_order_acquire)) relax();
    }
  }
}

void Spinlock::unlock() { locked_.store(0, std::memory_order_release); }

}  // namespace lodge::engine::soft
