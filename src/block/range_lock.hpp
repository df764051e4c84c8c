// Ranges of bytes that one coroutine at a time may have: for what must not meet with another change of the same bytes.
#pragma once

#include <cstdint>
#include <list>

#include "block/task.hpp"

namespace lodge::block {

class RangeLocks {
 public:
  struct Range {
    uint64_t begin, end;
  };
  class [[nodiscard]] Hold {
   public:
    Hold(RangeLocks& locks, std::list<Range>::iterator place) : locks_(&locks), place_(place) {}
    Hold(Hold&& other) noexcept : locks_(std::exchange(other.locks_, nullptr)), place_(other.place_) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (!locks_) return;
      locks_->held_.erase(place_);
      locks_->freed_.wake_all();
    }

   private:
    RangeLocks* locks_;
    std::list<Range>::iterator place_;
  };

  // Waits until nobody holds a byte of it.
  Task<Hold> acquire(uint64_t begin, uint64_t end) {
    while (taken(begin, end)) co_await freed_.wait();
    co_return Hold(*this, held_.insert(held_.end(), {begin, end}));
  }
  [[nodiscard]] bool taken(uint64_t begin, uint64_t end) const {
    for (const Range& range : held_)
      if (begin < range.end && range.begin < end) return true;
    return false;
  }

 private:
  std::list<Range> held_;
  WaitQueue freed_;
};

}  // namespace lodge::block
