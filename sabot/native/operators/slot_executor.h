// Where Acero's tasks run: an Arrow executor over a slot pool, for one plan.
#pragma once

#include <arrow/status.h>
#include <arrow/util/cancel.h>
#include <arrow/util/thread_pool.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "sabot/native/slots/item_note.h"
#include "sabot/native/slots/run.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::operators {

/// Made by the thread that waits for the plan. The plan's tasks stand in line here, and at any time at most one Run of
/// one item is queued for them, which runs one task and queues the next: so a plan takes its turns as one Run does,
/// whatever number of tasks it has. Made in a slot of the pool, it runs all tasks in that slot.
///
/// Acero numbers the threads that a plan meets and keeps an array by their number, of a size fixed by the process: once
/// so many slots have run a task of this plan, further slots leave theirs to the waiting thread.
class SlotExecutor final : public arrow::internal::Executor, public std::enable_shared_from_this<SlotExecutor> {
 public:
  struct Options {
    arrow::MemoryPool* memory = arrow::default_memory_pool();  // of the plan
    std::shared_ptr<slots::SlotPool> pool;
    slots::JobShare share;   // on whose account the tasks run
    slots::ItemNames names;  // and what the slots' log calls them
    slots::Source source = slots::Source::kLocal;
    size_t threads_max = 1;  // the waiting thread and all slots that may ever run a task; at least 1
  };

  static std::shared_ptr<SlotExecutor> Make(Options options);

  int GetCapacity() override;
  bool OwnsThisThread() override;

  /// From now on tasks are not run but told `why`, or, where they cannot be told, run by the waiting thread. The first
  /// reason stays.
  void Stop(arrow::Status why);
  /// True once the pool has skipped or refused a task and nobody has called Stop.
  bool refused() const;
  /// The plan has finished: Work may come to its end.
  void PlanFinished();
  /// For the waiting thread: runs what is left to it and waits, up to `timeout_us` or until `refused`. True when the
  /// plan has finished and no slot has anything to do with it any more.
  bool Work(int64_t timeout_us);

 private:
  class Turn;
  struct Task {
    arrow::internal::FnOnce<void()> run;
    arrow::StopToken token;
    StopCallback on_stop;
  };

  explicit SlotExecutor(Options options);

  arrow::Status SpawnReal(arrow::internal::TaskHints hints, arrow::internal::FnOnce<void()> task,
                          arrow::StopToken token, StopCallback&& on_stop) override;
  std::shared_ptr<Turn> NextTurn();  // under mutex_
  void Submit(std::shared_ptr<Turn> turn);
  void TakeTurn();
  void TurnSkipped();
  void TurnEnded();
  bool Admit();    // under mutex_
  Task PopTask();  // under mutex_
  void Do(Task task);
  bool ended() const { return finished_ && turns_ == 0 && tasks_.empty(); }  // under mutex_

  const std::shared_ptr<slots::SlotPool> pool_;
  const slots::JobShare share_;
  const slots::ItemNames names_;
  const slots::Source source_;
  const size_t slots_max_;
  const bool in_slot_;  // made in a slot: everything runs there
  const std::thread::id maker_ = std::this_thread::get_id();

  // All guarded by mutex_. The pool is never called under it.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;                 // not started
  size_t left_ = 0;                        // so many of them no slot may run
  std::shared_ptr<Turn> queued_;           // submitted, or about to be, and not started
  size_t turns_ = 0;                       // Runs that have not finished
  std::vector<std::thread::id> admitted_;  // slots that have run a task
  arrow::Status stop_;
  bool refused_ = false;
  bool finished_ = false;
};

}  // namespace sabot::operators
