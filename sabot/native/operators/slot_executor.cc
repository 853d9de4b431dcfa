#include "sabot/native/operators/slot_executor.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sabot::operators {

/// Leave to run one task of the plan. Owned by the pool, and by the executor until it has started.
class SlotExecutor::Turn final : public slots::Run {
 public:
  explicit Turn(std::shared_ptr<SlotExecutor> executor) : executor_(std::move(executor)) {}

  size_t item_count() const noexcept override { return 1; }
  slots::Source source_of(size_t) const noexcept override { return executor_->source_; }
  bool queued_in_slots() const noexcept override { return true; }
  void RunItem(size_t, int, int64_t) noexcept override {
    if (slots::ItemNote* note = slots::NoteScope::Here()) note->names = executor_->names_;
    executor_->TakeTurn();
  }
  void SkipItem(size_t) noexcept override { executor_->TurnSkipped(); }
  void Finished() noexcept override { executor_->TurnEnded(); }

 private:
  const std::shared_ptr<SlotExecutor> executor_;
};

std::shared_ptr<SlotExecutor> SlotExecutor::Make(Options options) {
  return std::shared_ptr<SlotExecutor>(new SlotExecutor(std::move(options)));
}

SlotExecutor::SlotExecutor(Options options)
    : pool_(std::move(options.pool)),
      share_(std::move(options.share)),
      names_(options.names),
      source_(options.source),
      slots_max_(options.threads_max - 1),
      in_slot_(pool_->on_slot_thread()) {}

int SlotExecutor::GetCapacity() {
  if (in_slot_) return 1;
  // At least 2, so that Acero refuses what only one thread may do, however many slots there are at this moment.
  return std::max(2, std::min(pool_->num_slots(), static_cast<int>(slots_max_)));
}

bool SlotExecutor::OwnsThisThread() {
  return in_slot_ ? std::this_thread::get_id() == maker_ : pool_->on_slot_thread();
}

arrow::Status SlotExecutor::SpawnReal(arrow::internal::TaskHints, arrow::internal::FnOnce<void()> task,
                                      arrow::StopToken token, StopCallback&& on_stop) {
  std::shared_ptr<Turn> turn;
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back({std::move(task), std::move(token), std::move(on_stop)});
    turn = NextTurn();
    if (in_slot_ || !stop_.ok()) changed_.notify_all();  // the waiting thread is to run it
  }
  if (turn) Submit(std::move(turn));
  // Never an error: Arrow drops a callback that it cannot spawn, and the plan would not end. See TurnSkipped.
  return arrow::Status::OK();
}

std::shared_ptr<SlotExecutor::Turn> SlotExecutor::NextTurn() {
  if (in_slot_ || queued_ || refused_ || !stop_.ok() || tasks_.size() <= left_) return nullptr;
  queued_ = std::make_shared<Turn>(shared_from_this());
  ++turns_;
  return queued_;
}

void SlotExecutor::Submit(std::shared_ptr<Turn> turn) {
  if (pool_->Submit(turn, share_) == slots::Outcome::kAccepted) return;
  TurnSkipped();
  TurnEnded();
}

void SlotExecutor::TakeTurn() {
  std::shared_ptr<Turn> next;
  Task task;
  bool mine = false;
  {
    std::lock_guard lock(mutex_);
    queued_.reset();
    if (tasks_.empty()) return;
    mine = Admit();
    if (mine) {
      task = PopTask();
    } else {
      ++left_;
      changed_.notify_all();
    }
    next = NextTurn();
  }
  if (next) Submit(std::move(next));
  if (mine) Do(std::move(task));
}

bool SlotExecutor::Admit() {
  const auto me = std::this_thread::get_id();
  if (std::find(admitted_.begin(), admitted_.end(), me) != admitted_.end()) return true;
  if (admitted_.size() >= slots_max_) return false;
  admitted_.push_back(me);
  return true;
}

SlotExecutor::Task SlotExecutor::PopTask() {
  Task task = std::move(tasks_.front());
  tasks_.pop_front();
  left_ = std::min(left_, tasks_.size());
  return task;
}

void SlotExecutor::Do(Task task) {
  arrow::Status why;
  {
    std::lock_guard lock(mutex_);
    why = stop_;
  }
  if (why.ok() && task.token.IsStopRequested()) why = task.token.Poll();
  if (!why.ok() && task.on_stop) {
    std::move(task.on_stop)(why);
  } else {
    std::move(task.run)();  // also when stopped: somebody waits for it, and it has nothing else to tell him by
  }
}

void SlotExecutor::TurnSkipped() {
  std::lock_guard lock(mutex_);
  queued_.reset();
  if (stop_.ok()) refused_ = true;  // not our doing: the pool was shut down
  changed_.notify_all();
}

void SlotExecutor::TurnEnded() {
  std::lock_guard lock(mutex_);
  --turns_;
  changed_.notify_all();
}

void SlotExecutor::Stop(arrow::Status why) {
  std::lock_guard lock(mutex_);
  if (stop_.ok()) stop_ = std::move(why);
  refused_ = false;
  changed_.notify_all();
}

bool SlotExecutor::refused() const {
  std::lock_guard lock(mutex_);
  return refused_;
}

void SlotExecutor::PlanFinished() {
  std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

bool SlotExecutor::Work(int64_t timeout_us) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_us);
  std::unique_lock lock(mutex_);
  while (!ended() && !refused_) {
    const bool stopped = !stop_.ok();
    if (!tasks_.empty() && (in_slot_ || stopped || left_ > 0)) {
      Task task = PopTask();
      lock.unlock();
      Do(std::move(task));
      lock.lock();
      if (std::chrono::steady_clock::now() >= end) break;
      continue;
    }
    if (stopped && queued_) {
      const std::shared_ptr<Turn> turn = queued_;
      lock.unlock();
      pool_->Cancel(turn);  // without effect while it is being submitted: then the next slice's
      lock.lock();
      if (ended()) break;
    }
    if (changed_.wait_until(lock, end) == std::cv_status::timeout) break;
  }
  return ended();
}

}  // namespace sabot::operators
