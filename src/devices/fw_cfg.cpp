#include "devices/fw_cfg.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace lodge::devices {

namespace {

constexpr size_t kNameBytes = 56;                                                  // of a directory entry, with the zero at its end
constexpr uint32_t kDmaSignatureHigh = 0x51454d55, kDmaSignatureLow = 0x20434647;  // "QEMU CFG"
constexpr uint32_t kFeatureTraditional = 1, kFeatureDma = 2;
constexpr uint32_t kDmaError = 1, kDmaRead = 2, kDmaSkip = 4, kDmaSelect = 8, kDmaWrite = 16;
constexpr unsigned kDmaKeyShift = 16;

template <typename T>
void append_big(std::vector<uint8_t>& out, T value) {
  for (unsigned i = sizeof(T); i-- != 0;) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

template <typename T>
std::vector<uint8_t> little(T value) {
  std::vector<uint8_t> out;
  out.reserve(sizeof(T));
  for (unsigned i = 0; i < sizeof(T); ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  return out;
}

template <typename T>
T load_big(const std::byte* at) {
  T value = 0;
  for (unsigned i = 0; i < sizeof(T); ++i) value = static_cast<T>(value << 8 | std::to_integer<T>(at[i]));
  return value;
}

}  // namespace

FwCfg::FwCfg(memory::GuestMemory& memory) : memory_(memory) {
  add(kSignature, {'Q', 'E', 'M', 'U'});
  add_number32(kFeatures, kFeatureTraditional | kFeatureDma);
  MutexLock lock(mutex_);
  rebuild_directory();
  select(kSignature);
}

void FwCfg::add(uint16_t key, std::vector<uint8_t> bytes) {
  MutexLock lock(mutex_);
  items_[key] = {.bytes = std::move(bytes)};
}

void FwCfg::add_number16(uint16_t key, uint16_t value) { add(key, little(value)); }
void FwCfg::add_number32(uint16_t key, uint32_t value) { add(key, little(value)); }

Result<> FwCfg::add_file(std::string_view name, std::vector<uint8_t> bytes, bool writable) {
  return add_item(name, {.bytes = std::move(bytes), .writable = writable});
}

Result<> FwCfg::add_made_file(std::string_view name, std::function<std::vector<uint8_t>()> make) {
  std::vector<uint8_t> bytes = make();
  return add_item(name, {.bytes = std::move(bytes), .make = std::move(make)});
}

Result<> FwCfg::add_item(std::string_view name, Item item) {
  MutexLock lock(mutex_);
  if (name.empty() || name.size() >= kNameBytes) return fail(ErrorKind::Internal, "fw_cfg: '{}' is no name for a file", name);
  if (files_.contains(name)) return fail(ErrorKind::Internal, "fw_cfg: there are two files '{}'", name);
  files_.emplace(name, next_file_);
  items_[next_file_] = std::move(item);
  ++next_file_;
  rebuild_directory();
  return {};
}

uint16_t FwCfg::key_of(std::string_view name) {
  MutexLock lock(mutex_);
  const auto found = files_.find(name);
  return found == files_.end() ? uint16_t{0} : found->second;
}

std::vector<uint8_t> FwCfg::file(std::string_view name) {
  MutexLock lock(mutex_);
  const auto found = files_.find(name);
  return found == files_.end() ? std::vector<uint8_t>() : items_[found->second].bytes;
}

// The count, then for each file: size, number, two bytes of nothing, name. All numbers most significant byte first.
void FwCfg::rebuild_directory() {
  std::vector<uint8_t> out;
  append_big(out, static_cast<uint32_t>(files_.size()));
  for (const auto& [name, key] : files_) {
    append_big(out, static_cast<uint32_t>(items_[key].bytes.size()));
    append_big(out, key);
    append_big(out, uint16_t{0});
    out.insert(out.end(), name.begin(), name.end());
    out.resize(out.size() + kNameBytes - name.size());
  }
  items_[kDirectory] = {.bytes = std::move(out)};
}

void FwCfg::select(uint16_t key) {
  const auto found = items_.find(key);
  selected_ = found == items_.end() ? nullptr : &found->second;
  position_ = 0;
  if (selected_ && selected_->make) selected_->bytes = selected_->make();
}

uint8_t FwCfg::next_byte() {
  if (!selected_ || position_ >= selected_->bytes.size()) return 0;
  return selected_->bytes[position_++];
}

uint32_t FwCfg::Ports::read(uint64_t offset, unsigned size) {
  // Only bytes of the data port read; the selector's place gives nothing.
  if (offset != 1 || size != 1) return 0;
  MutexLock lock(chip.mutex_);
  return chip.next_byte();
}

// Writing data through the port is a thing of the past: QEMU took it away with its version 2.4.
void FwCfg::Ports::write(uint64_t offset, unsigned size, uint32_t value) {
  if (offset != 0 || size != 2) return;
  MutexLock lock(chip.mutex_);
  chip.select(static_cast<uint16_t>(value));
}

uint8_t FwCfg::DmaPorts::read_byte(uint64_t offset) {
  constexpr uint64_t kSignature = uint64_t{kDmaSignatureHigh} << 32 | kDmaSignatureLow;
  return static_cast<uint8_t>(kSignature >> (8 * (7 - offset)));
}

void FwCfg::DmaPorts::write_byte(uint64_t offset, uint8_t value) {
  MutexLock lock(chip.mutex_);
  const unsigned shift = static_cast<unsigned>(8 * (7 - offset));
  chip.dma_address_ = (chip.dma_address_ & ~(uint64_t{0xff} << shift)) | uint64_t{value} << shift;
  if (offset != 7) return;
  // The registers are clear again for the next one, who may write the low half alone.
  chip.run_dma(std::exchange(chip.dma_address_, 0));
}

void FwCfg::run_dma(uint64_t at) {
  std::array<std::byte, 16> raw{};
  if (!memory_.read(at, raw)) return;  // there is nowhere to say so either
  const Request request{load_big<uint32_t>(raw.data()), load_big<uint32_t>(raw.data() + 4), load_big<uint64_t>(raw.data() + 8)};
  const uint32_t result = carry_out(request) ? 0 : kDmaError;
  std::vector<uint8_t> answer;
  append_big(answer, result);
  static_cast<void>(memory_.write(at, std::as_bytes(std::span(answer))));
}

bool FwCfg::carry_out(const Request& request) {
  if (request.control & kDmaSelect) select(static_cast<uint16_t>(request.control >> kDmaKeyShift));
  if (request.control & kDmaRead) return copy_out(request.address, request.length);
  if (request.control & kDmaWrite) return copy_in(request.address, request.length);
  if (request.control & kDmaSkip) {
    if (selected_) position_ = std::min<uint64_t>(position_ + request.length, selected_->bytes.size());
  }
  return true;
}

bool FwCfg::copy_out(uint64_t address, uint32_t length) {
  const uint64_t there = selected_ ? selected_->bytes.size() - position_ : 0;
  const uint64_t data = std::min<uint64_t>(length, there);
  if (data != 0) {
    if (!memory_.write(address, std::as_bytes(std::span(selected_->bytes)).subspan(position_, data))) return false;
    position_ += data;
  }
  return data == length || memory_.fill(address + data, std::byte{0}, length - data);
}

bool FwCfg::copy_in(uint64_t address, uint32_t length) {
  if (!selected_ || !selected_->writable || length > selected_->bytes.size() - position_) return false;
  if (!memory_.read(address, std::as_writable_bytes(std::span(selected_->bytes)).subspan(position_, length))) return false;
  position_ += length;
  return true;
}

}  // namespace lodge::devices
