#include "sabot/native/workers/morsel_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>

namespace sabot::workers {
namespace {

constexpr int kFixedSize = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr int kSealed = kFixedSize | F_SEAL_WRITE;

std::atomic<int64_t> shared_bytes{0};  // of the process, as its mappings are; relaxed: a number to be shown

void CountShared(int64_t bytes) { shared_bytes.fetch_add(bytes, std::memory_order_relaxed); }

Descriptor MakeMemfd(const char* name) { return Descriptor(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)); }

}  // namespace

std::shared_ptr<SharedMemory> SharedMemory::Make(size_t capacity, Writer writer) {
  Descriptor fd = MakeMemfd(writer == Writer::kOurs ? "sabot-morsel" : "sabot-answers");
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(capacity)) != 0) return nullptr;
  void* data = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return nullptr;
  CountShared(static_cast<int64_t>(capacity));
  auto memory = std::shared_ptr<SharedMemory>(new SharedMemory(std::move(fd), static_cast<uint8_t*>(data), capacity));
  // Under the seal the mapping above stays writable, and no other can be made.
  const int writers = writer == Writer::kOurs ? F_SEAL_FUTURE_WRITE : 0;
  if (fcntl(memory->fd(), F_ADD_SEALS, kFixedSize | writers | F_SEAL_SEAL) != 0) return nullptr;
  return memory;
}

SharedMemory::~SharedMemory() {
  munmap(data_, capacity_);
  CountShared(-static_cast<int64_t>(capacity_));
}

std::shared_ptr<const SealedMemory> SealedMemory::Map(Descriptor fd, size_t bytes) {
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return nullptr;
  if ((seals & kSealed) != kSealed) {
    errno = EPERM;
    return nullptr;
  }
  struct stat facts;
  if (fstat(fd.get(), &facts) != 0) return nullptr;
  if (facts.st_size < 0 || static_cast<uint64_t>(facts.st_size) < bytes) {
    errno = EINVAL;
    return nullptr;
  }
  if (bytes == 0) return std::shared_ptr<const SealedMemory>(new SealedMemory(nullptr, 0));
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (data == MAP_FAILED) return nullptr;
  CountShared(static_cast<int64_t>(bytes));
  return std::shared_ptr<const SealedMemory>(new SealedMemory(static_cast<const uint8_t*>(data), bytes));
}

SealedMemory::~SealedMemory() {
  if (size_ == 0) return;
  munmap(const_cast<uint8_t*>(data_), size_);
  CountShared(-static_cast<int64_t>(size_));
}

int64_t SharedBytes() noexcept { return shared_bytes.load(std::memory_order_relaxed); }

Descriptor SealedCopy(const void* bytes, size_t size) {
  Descriptor fd = MakeMemfd("sabot-function");
  const auto* next = static_cast<const char*>(bytes);
  for (size_t left = size; fd && left > 0;) {
    const ssize_t wrote = write(fd.get(), next, left);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return Descriptor();
    next += wrote;
    left -= static_cast<size_t>(wrote);
  }
  if (fd && fcntl(fd.get(), F_ADD_SEALS, kSealed | F_SEAL_SEAL) != 0) return Descriptor();
  return fd;
}

}  // namespace sabot::workers
