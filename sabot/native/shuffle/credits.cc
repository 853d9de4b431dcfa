#include "sabot/native/shuffle/credits.h"

#include "sabot/native/status.h"

namespace sabot::shuffle {

using memory::Promise;

Credits::Credits(std::shared_ptr<memory::Ledger> ledger, CreditDesk::Options options)
    : ledger_(std::move(ledger)), desk_(options) {
  listener_ = ledger_->AddListener(memory::Event::kFreed, [this] {
    std::lock_guard lock(mutex_);
    ++freed_;
    changed_.notify_all();
  });
}

Credits::~Credits() { ledger_->RemoveListener(listener_); }

std::unique_ptr<Credits::Stream> Credits::Open(const std::string& peer) {
  int64_t own = 0;
  CreditDesk::StreamId id = 0;
  {
    std::lock_guard lock(mutex_);
    id = next_id_++;
    own = desk_.Opened(id, peer);
  }
  if (own > 0) ledger_->Reserve(Promise::kCredits, own);
  GrantAhead(id);
  return std::make_unique<Stream>(this, id);
}

void Credits::CloseStream(CreditDesk::StreamId id) {
  int64_t bytes = 0;
  {
    std::lock_guard lock(mutex_);
    bytes = desk_.Closed(id);
  }
  GiveBack(bytes);
  ServeWaiting();
}

void Credits::GiveBack(int64_t bytes) {
  if (bytes > 0) ledger_->Unreserve(Promise::kCredits, bytes);
}

void Credits::ServeWaiting() {
  while (true) {
    CreditDesk::Need need;
    bool waits = false;
    {
      std::lock_guard lock(mutex_);
      const auto next = desk_.NextWaiting();
      waits = next.has_value();
      if (waits) need = *next;
    }
    if (!waits) return ledger_->Withdraw(Promise::kCredits);
    // Before the question, as a refusal wakes who frees: what is a peer's own waits for the disk, too, or a fast peer
    // would fill all up to the limit past a slow disk, chunk by chunk.
    const bool freeing = ledger_->freeing();
    // Outside the lock: the ledger tells its listeners, and we are one.
    const bool reserved = ledger_->TryReserve(Promise::kCredits, need.bytes);
    int64_t unused = 0;
    {
      std::lock_guard lock(mutex_);
      if (reserved) unused = desk_.Reserved(need);
      if (!reserved && (freeing || !desk_.LendOwnChunks())) return;
      changed_.notify_all();
    }
    GiveBack(unused);
  }
}

void Credits::GrantAhead(CreditDesk::StreamId id) {
  CreditDesk::Need need;
  {
    std::lock_guard lock(mutex_);
    const auto ahead = desk_.Ahead(id);
    if (!ahead) return;
    need = *ahead;
  }
  if (!ledger_->ReserveIfRoom(Promise::kCredits, need.bytes)) return;
  int64_t unused = 0;
  {
    std::lock_guard lock(mutex_);
    unused = desk_.Reserved(need);
  }
  GiveBack(unused);
}

bool Credits::WaitFreed(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const uint64_t before = freed_;
  changed_.wait_until(lock, deadline, [&] { return closed_ || freed_ != before; });
  return !closed_;
}

void Credits::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

int64_t Credits::Stream::granted() const {
  std::lock_guard lock(credits_->mutex_);
  return credits_->desk_.granted(id_);
}

arrow::Status Credits::Stream::WaitGranted(int64_t total, Clock::time_point deadline) {
  {
    std::lock_guard lock(credits_->mutex_);
    credits_->desk_.Wanted(id_, total);
  }
  const arrow::Status status = AwaitGranted(total, deadline);
  {
    std::lock_guard lock(credits_->mutex_);
    credits_->desk_.Answered(id_);
    credits_->changed_.notify_all();  // those behind it may be served now
  }
  credits_->ServeWaiting();
  return status;
}

arrow::Status Credits::Stream::AwaitGranted(int64_t total, Clock::time_point deadline) {
  const memory::Ledger& ledger = credits_->ledger();
  while (true) {
    uint64_t freed = 0;
    {
      std::lock_guard lock(credits_->mutex_);
      const CreditDesk& desk = credits_->desk_;
      if (!desk.Waits(id_) || credits_->closed_ || Clock::now() >= deadline) return arrow::Status::OK();
      // Again each time: another peer may have come, with a chunk of its own.
      if (ledger.bytes_max() > 0 && !desk.CanEverGrant(id_, total, ledger.high_water())) {
        return MakeStatus(Code::kLimit, "A chunk of " + std::to_string(total - desk.granted(id_)) +
                                            " bytes is more than the agent's memory has room for at any time. Raise "
                                            "memory.bytes_max, or send fewer rows or smaller values at a time (limit=" +
                                            std::to_string(ledger.bytes_max()) + ")");
      }
      freed = credits_->freed_;
    }
    credits_->ServeWaiting();
    std::unique_lock lock(credits_->mutex_);
    credits_->changed_.wait_until(
        lock, deadline, [&] { return credits_->closed_ || credits_->freed_ != freed || !credits_->desk_.Waits(id_); });
  }
}

arrow::Status Credits::Stream::Arrived(int64_t bytes) {
  std::lock_guard lock(credits_->mutex_);
  if (credits_->desk_.Arrived(id_, bytes)) return arrow::Status::OK();
  return MakeStatus(Code::kLimit, "A chunk of " + std::to_string(bytes) +
                                      " bytes came for which the stream has no credit; it was not kept. Send no more "
                                      "than the acknowledgements grant (limit=" +
                                      std::to_string(credits_->desk_.granted(id_)) + ")");
}

void Credits::Stream::Settled(int64_t bytes) {
  int64_t left = 0;
  {
    std::lock_guard lock(credits_->mutex_);
    left = credits_->desk_.Settled(id_, bytes);
  }
  credits_->GiveBack(left);
  credits_->ServeWaiting();
  credits_->GrantAhead(id_);
}

}  // namespace sabot::shuffle
