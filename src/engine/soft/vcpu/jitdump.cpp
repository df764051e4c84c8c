#include "engine/soft/vcpu/jitdump.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

namespace lodge::engine::soft {
namespace {

constexpr size_t kPage = 4096;

struct Header {
  uint32_t magic = 0x4a695444, version = 1, size = sizeof(Header), machine = EM_X86_64, reserved = 0, pid = 0;
  uint64_t timestamp = 0, flags = 0;
};
static_assert(sizeof(Header) == 40);

struct CodeLoad {
  uint32_t id = 0, total_size = 0;
  uint64_t timestamp = 0;
  uint32_t pid = 0, tid = 0;
  uint64_t address = 0, same_address = 0, size = 0, index = 0;
};
static_assert(sizeof(CodeLoad) == 56);

uint64_t now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

Result<std::unique_ptr<JitDump>> JitDump::create(const std::string& folder) {
  const std::string path = fmt::format("{}/jit-{}.dump", folder, getpid());
  Fd file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file) return os_fail(fmt::format("cannot write translated code to {}", path));
  const Header header{.pid = static_cast<uint32_t>(getpid()), .timestamp = now()};
  if (write(file.get(), &header, sizeof header) != sizeof header) return os_fail(path);
  void* const marker = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, file.get(), 0);
  if (marker == MAP_FAILED) return os_fail(fmt::format("mapping {}, as perf wants it", path));
  return std::unique_ptr<JitDump>(new JitDump(std::move(file), marker));
}

JitDump::~JitDump() { munmap(marker_, kPage); }

void JitDump::add(const std::string& name, const uint8_t* address, const uint8_t* bytes, uint64_t size) {
  CodeLoad record;
  record.total_size = static_cast<uint32_t>(sizeof record + name.size() + 1 + size);
  record.timestamp = now();
  record.pid = static_cast<uint32_t>(getpid());
  record.tid = static_cast<uint32_t>(gettid());
  record.address = record.same_address = reinterpret_cast<uint64_t>(address);
  record.size = size;
  record.index = index_++;
  const iovec parts[] = {{&record, sizeof record}, {const_cast<char*>(name.c_str()), name.size() + 1}, {const_cast<uint8_t*>(bytes), size}};
  static_cast<void>(writev(file_.get(), parts, 3));
}

}  // namespace lodge::engine::soft
