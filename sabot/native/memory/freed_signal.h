// Tells a thread that sits in poll or an event loop that the ledger has room again. Free of Arrow.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "sabot/native/memory/ledger.h"

namespace sabot::memory {

/// Its descriptor becomes readable at each Event::kFreed; read eight bytes to arm it again. Taken from inside of
/// whatever freed the memory, a call into Python would wait for the GIL under who knows which lock: hence a descriptor.
class FreedSignal {
 public:
  explicit FreedSignal(std::shared_ptr<Ledger> ledger)
      : ledger_(std::move(ledger)), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    listener_ = ledger_->AddListener(Event::kFreed, [fd = fd_] {
      const uint64_t one = 1;
      [[maybe_unused]] const auto written = write(fd, &one, sizeof(one));  // full: it is readable already
    });
  }
  ~FreedSignal() {
    ledger_->RemoveListener(listener_);
    close(fd_);
  }
  FreedSignal(const FreedSignal&) = delete;
  FreedSignal& operator=(const FreedSignal&) = delete;

  /// -1 where the system gave none.
  int fd() const { return fd_; }

 private:
  const std::shared_ptr<Ledger> ledger_;
  const int fd_;
  int64_t listener_ = 0;
};

}  // namespace sabot::memory
