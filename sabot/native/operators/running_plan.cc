#include "sabot/native/operators/running_plan.h"

#include <arrow/acero/options.h>
#include <arrow/acero/util.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/thread_pool.h>

#include <algorithm>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::operators {

namespace ac = arrow::acero;

// Acero numbers threads up to a count that is taken once in the life of a process, and makes room for as many as the
// pools have when a plan is made: where somebody has made them smaller since, the others would write beyond it.
size_t RunningPlan::ThreadsMax() {
  const int now = arrow::GetCpuThreadPoolCapacity() + arrow::io::GetIOThreadPoolCapacity() + 1;
  return std::min(ac::ThreadIndexer::Capacity(), static_cast<size_t>(now));
}

arrow::Result<std::unique_ptr<RunningPlan>> RunningPlan::Start(const ac::Declaration& declaration, Options options) {
  options.names = options.pool->logbook().Name(options.share.id, declaration.factory_name);
  arrow::MemoryPool* const memory = options.memory;
  auto executor = SlotExecutor::Make(std::move(options));
  const arrow::ExecContext context(memory, executor.get());
  ARROW_ASSIGN_OR_RAISE(auto plan, ac::ExecPlan::Make(context));
  std::unique_ptr<RunningPlan> running(new RunningPlan(plan, executor));
  const ac::Declaration sink("table_sink", ac::TableSinkNodeOptions(&running->table_));
  const arrow::Status made = ac::Declaration::Sequence({declaration, sink}).AddToPlan(plan.get()).status();
  const arrow::Status valid = made.ok() ? plan->Validate() : made;
  if (!valid.ok()) {
    executor->PlanFinished();
    return valid;
  }
  plan->StartProducing();
  plan->finished().AddCallback([executor](const arrow::Status&) { executor->PlanFinished(); });
  return running;
}

RunningPlan::~RunningPlan() {
  if (WaitFor(0)) return;
  Cancel();
  while (!WaitFor(1'000'000)) continue;
}

bool RunningPlan::WaitFor(int64_t timeout_us) {
  const bool ended = executor_->Work(timeout_us);
  if (!ended && executor_->refused()) {
    Stop(MakeStatus(Code::kUsage, "the slots were shut down before the plan ended; keep them until the work is done"));
  }
  return ended;
}

void RunningPlan::Cancel() { Stop(MakeStatus(Code::kCancelled, "the plan was cancelled before it ended")); }

void RunningPlan::Stop(arrow::Status why) {
  if (!stopped_.ok()) return;
  stopped_ = std::move(why);
  // The nodes first: those with threads of their own must hear of it while Acero still knows all its tasks.
  plan_->StopProducing();
  executor_->Stop(stopped_);
}

arrow::Result<std::shared_ptr<arrow::Table>> RunningPlan::result() const {
  const arrow::Status& status = plan_->finished().status();
  if (!status.ok() && !stopped_.ok()) return stopped_;
  ARROW_RETURN_NOT_OK(status);
  return table_;
}

}  // namespace sabot::operators
