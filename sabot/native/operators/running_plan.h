// An Acero plan that runs in the slots, as its waiting thread sees it.
#pragma once

#include <arrow/acero/exec_plan.h>
#include <arrow/result.h>
#include <arrow/table.h>

#include <cstdint>
#include <memory>

#include "sabot/native/operators/slot_executor.h"

namespace sabot::operators {

/// Made, waited for and destroyed by one thread, which only waits, unless it is a slot itself or meets the limit that
/// SlotExecutor tells of. When `WaitFor` has said true, nothing of the plan is left in any slot.
class RunningPlan {
 public:
  using Options = SlotExecutor::Options;  // the tasks' names are the job's and the last node's

  /// How many threads Acero can number.
  static size_t ThreadsMax();

  /// Starts the plan; an error where the declaration is none. Does not wait.
  static arrow::Result<std::unique_ptr<RunningPlan>> Start(const arrow::acero::Declaration& declaration,
                                                           Options options);
  ~RunningPlan();  // cancels, and waits for the tasks that run

  /// Waits up to `timeout_us`; whether the plan has ended.
  bool WaitFor(int64_t timeout_us);
  /// Tasks that have not started never will; those running go on to their end, which is still to be waited for.
  void Cancel();
  /// After the end: the rows, or what went wrong first; kCancelled after Cancel, kUsage when the pool was shut down.
  arrow::Result<std::shared_ptr<arrow::Table>> result() const;

 private:
  RunningPlan(std::shared_ptr<arrow::acero::ExecPlan> plan, std::shared_ptr<SlotExecutor> executor)
      : plan_(std::move(plan)), executor_(std::move(executor)) {}
  void Stop(arrow::Status why);

  std::shared_ptr<arrow::Table> table_;  // written by the plan's sink
  arrow::Status stopped_;
  const std::shared_ptr<arrow::acero::ExecPlan> plan_;
  const std::shared_ptr<SlotExecutor> executor_;
};

}  // namespace sabot::operators
