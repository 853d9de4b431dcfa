#include "sabot/native/spill/spill_writer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace sabot::spill {
namespace {

// Few rows a run make many small segments a partition; many keep memory until the last of them is written.
constexpr int64_t kRunBytesMin = 8 << 20;
constexpr int64_t kRunBytesMax = 128 << 20;

}  // namespace

SpillWriter::SpillWriter(std::shared_ptr<memory::Ledger> ledger, std::shared_ptr<SpillSpace> space)
    : ledger_(std::move(ledger)), space_(std::move(space)), thread_([this] { Loop(); }) {
  (void)pthread_setname_np(thread_.native_handle(), "sabot-spill");
  listener_ = ledger_->AddListener(memory::Event::kHighWater, [this] { Wake(); });
}

void SpillWriter::AddSource(std::weak_ptr<SpillSource> source) {
  std::lock_guard lock(mutex_);
  std::erase_if(sources_, [](const auto& known) { return known.expired(); });
  sources_.push_back(std::move(source));
}

void SpillWriter::Wake() {
  std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_all();
  if (!stopping_) ledger_->SetFreeing(true);
}

bool SpillWriter::WaitIdle(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                           [this] { return stopping_ || (!woken_ && !busy_); });
}

void SpillWriter::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    ledger_->SetFreeing(false);
    changed_.notify_all();
  }
  ledger_->RemoveListener(listener_);
  thread_.join();
  ledger_->TellEnded();
}

void SpillWriter::Loop() {
  while (WaitForWork()) {
    for (const auto& source : Sources()) source->BeginRound();
    while (ledger_->bytes_to_free() > 0 && SpillOnce()) {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
  }
}

bool SpillWriter::WaitForWork() {
  std::unique_lock lock(mutex_);
  if (!woken_ && busy_ && !stopping_) {
    ledger_->SetFreeing(false);  // before the lock is let go: whoever wakes this thread next sets it again
    lock.unlock();
    ledger_->TellEnded();
    lock.lock();
  }
  busy_ = false;
  changed_.notify_all();
  changed_.wait(lock, [this] { return woken_ || stopping_; });
  woken_ = false;
  busy_ = true;
  return !stopping_;
}

std::vector<std::shared_ptr<SpillSource>> SpillWriter::Sources() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<SpillSource>> sources;
  for (const auto& known : sources_) {
    if (auto source = known.lock()) sources.push_back(std::move(source));
  }
  return sources;
}

bool SpillWriter::SpillOnce() {
  const int64_t bytes = std::clamp(ledger_->bytes_to_free(), kRunBytesMin, kRunBytesMax);
  for (const auto& source : Sources()) {
    const auto job = source->TakeColdest(bytes, space_);
    if (job == nullptr) continue;
    auto run = SpilledRun::Write(job->TakeContent(), &job->group());
    if (run.ok()) {
      job->Written(*std::move(run));
    } else {
      job->Failed(run.status());
    }
    return true;
  }
  return false;
}

}  // namespace sabot::spill
