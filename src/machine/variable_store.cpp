#include "machine/variable_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/log.hpp"
#include "base/write_all.hpp"

namespace lodge::machine {

namespace {

std::unexpected<Error> refuse(const std::string& path, int error) {
  Error why = os_error(fmt::format("UEFI variables {}", path), error);
  if (why.kind == ErrorKind::Internal) why.kind = ErrorKind::Usage;
  return std::unexpected(std::move(why));
}

// A whole store appears under the name, or none.
Result<> make(const std::string& path, std::span<const uint8_t> fresh) {
  const std::string beside = fmt::format("{}.{}.part", path, getpid());
  Fd fd(open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return refuse(path, errno);
  int error = write_all(fd.get(), fresh, 0);
  if (error == 0 && fdatasync(fd.get()) != 0) error = errno;
  // Somebody else may have made one meanwhile: theirs stays.
  if (error == 0 && link(beside.c_str(), path.c_str()) != 0 && errno != EEXIST)
    error = rename(beside.c_str(), path.c_str()) == 0 ? 0 : errno;
  unlink(beside.c_str());
  if (error != 0) return refuse(path, error);
  return {};
}

}  // namespace

Result<std::unique_ptr<VariableStore>> VariableStore::open(const std::string& path, std::span<const uint8_t> fresh) {
  auto memory = TRY(memory::GuestMemory::create({{0, fresh.size()}}));
  std::unique_ptr<VariableStore> store;
  if (path.empty()) {
    store.reset(new VariableStore({}, Fd(), std::move(memory)));
    std::memcpy(store->bytes().data(), fresh.data(), fresh.size());
    return store;
  }
  if (access(path.c_str(), F_OK) != 0) TRY(make(path, fresh));
  Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return refuse(path, errno);
  struct stat info{};
  if (fstat(file.get(), &info) != 0) return refuse(path, errno);
  if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) != fresh.size())
    return fail(ErrorKind::Usage,
                "UEFI variables {}: this is no store of this firmware's, which has {} bytes: name another file with --uefi-vars", path,
                fresh.size());
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(ErrorKind::Usage, "UEFI variables {}: another machine uses this file: name another one with --uefi-vars", path);
  store.reset(new VariableStore(path, std::move(file), std::move(memory)));
  for (size_t done = 0; done < fresh.size();) {
    const ssize_t got = pread(store->file_.get(), store->bytes().data() + done, fresh.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return refuse(path, got < 0 ? errno : EIO);
    done += static_cast<size_t>(got);
  }
  return store;
}

VariableStore::~VariableStore() {
  if (file_ && fdatasync(file_.get()) != 0) log::warning("UEFI variables {}: {}", path_, os_error("not on the disk").message);
}

std::span<uint8_t> VariableStore::bytes() const {
  const memory::GuestMemory::Region& region = memory_->regions()[0];
  return {reinterpret_cast<uint8_t*>(region.host), region.size};
}

void VariableStore::save(uint64_t offset, uint64_t length) const {
  if (!file_) return;
  if (const int error = write_all(file_.get(), bytes().subspan(offset, length), offset); error != 0)
    log::error("UEFI variables {}: {}; what the guest has changed is lost when its machine ends", path_,
               os_error("cannot write", error).message);
}

}  // namespace lodge::machine
