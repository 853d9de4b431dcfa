#include "sabot/native/operators/running_plan.h"

#include <arrow/acero/options.h>
#include <arrow/acero/util.h>

#include <utility>

#include "sabot/native/status.h"

namespace sabot::operators {

namespace ac = arrow::acero;

size_t RunningPlan::ThreadsMax() { return ac::ThreadIndexer::Capacity(); }

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
