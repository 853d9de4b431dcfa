// Memory that is passed between an agent and its workers: memfds, sealed so that neither can pull it from under the
// other. Arrow-free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "sabot/native/workers/descriptor.h"

namespace sabot::workers {

/// Memory of ours that a worker maps too, sealed against any size change and reused from call to call.
class SharedMemory {
 public:
  /// kOurs: sealed against any other writer. kWorkers: it writes there at any time, so what is read must be copied
  /// before it is looked at.
  enum class Writer { kOurs, kWorkers };
  /// Null, with errno set, when the system gives no memory.
  static std::shared_ptr<SharedMemory> Make(size_t capacity, Writer writer);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  uint8_t* data() const noexcept { return data_; }
  size_t capacity() const noexcept { return capacity_; }
  int fd() const noexcept { return fd_.get(); }

 private:
  SharedMemory(Descriptor fd, uint8_t* data, size_t capacity) : fd_(std::move(fd)), data_(data), capacity_(capacity) {}

  const Descriptor fd_;
  uint8_t* const data_;
  const size_t capacity_;
};

/// Another process's memory, which nobody can write or cut any more: read-only here.
class SealedMemory {
 public:
  /// Null, with errno set (EPERM: not sealed; EINVAL: shorter than `bytes`), where it cannot be trusted or mapped.
  static std::shared_ptr<const SealedMemory> Map(Descriptor fd, size_t bytes);
  ~SealedMemory();
  SealedMemory(const SealedMemory&) = delete;
  SealedMemory& operator=(const SealedMemory&) = delete;

  const uint8_t* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  SealedMemory(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* const data_;  // null where size_ is 0
  const size_t size_;
};

/// Bytes of all memory of both kinds that is mapped in this process.
int64_t SharedBytes() noexcept;

/// A sealed memfd that holds a copy of `bytes`; invalid, with errno set, when the system gives none.
Descriptor SealedCopy(const void* bytes, size_t size);

}  // namespace sabot::workers
