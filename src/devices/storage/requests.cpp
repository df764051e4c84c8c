#include "devices/storage/requests.hpp"

#include <utility>

namespace lodge::devices::storage {

void Requests::submit(Mutex& mutex, Disk& disk, block::Request request, std::function<void(bool ok)> then) {
  ++in_flight_;
  disk.submit(std::move(request), [this, &mutex, generation = generation_, held = buffer_, then = std::move(then)](bool ok) mutable {
    MutexLock lock(mutex);
    if (generation == generation_) then(ok);
    then = nullptr;  // what it holds of the guest's memory is let go of before anybody takes this for idle
    held.reset();
    if (--in_flight_ == 0) idle_.notify_all();
  });
}

void Requests::abandon() {
  ++generation_;
  if (in_flight_ != 0) buffer_ = std::make_shared<std::vector<uint8_t>>();
}

void Requests::wait_until_idle(Mutex& mutex) {
  MutexLock lock(mutex);
  while (in_flight_ != 0) lock.wait(idle_);
}

}  // namespace lodge::devices::storage
