// Where the time of a VM's vCPUs goes, for people: samples by the threads' CPU time, and the vCPUs' counters (cpu/counter.hpp). The report
// is a text file, written when the VM ends.
#pragma once

#include <time.h>

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "engine/soft/vcpu/vcpu_memory.hpp"

namespace lodge::engine::soft {

class Profile {
 public:
  // Opens the report's file, and takes the signal SIGPROF of this process.
  [[nodiscard]] static Result<std::unique_ptr<Profile>> create(const std::string& file);
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  // The calling thread runs the vCPU from now on: it is sampled. Cheap when it is so already.
  [[nodiscard]] Result<> attach(const CpuState& cpu);
  // No vCPU may run any more.
  [[nodiscard]] Result<> write(std::span<const VcpuMemoryPtr> vcpus);

  struct Sample {
    enum class Place : uint8_t { Block, Code, Engine, Translator, Outside } place;
    uint8_t cpl;
    uint64_t rip;  // Block: where it begins; Engine: the instruction
  };
  struct Thread {
    const CpuState* cpu;  // null: sampled no more
    timer_t timer;
    uint32_t count;  // those beyond the capacity are only counted
    std::vector<Sample> samples;
  };

 private:
  explicit Profile(Fd file) : file_(std::move(file)) {}
  void stop_sampling();

  Fd file_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Thread>> threads_;  // shared with the threads, which may outlive this
};

}  // namespace lodge::engine::soft
