// The step that calls a Python function in the slot's worker process.
#pragma once

#include <arrow/status.h>

#include <memory>
#include <string>
#include <utility>

#include "sabot/native/operators/step.h"
#include "sabot/native/workers/worker_pool.h"

namespace sabot::operators {

/// Sends each morsel to the slot's worker in `pool` and waits for its answer, without the GIL. With `keep_failed` rows
/// on which the function takes its worker down, or longer than it may, come out as they came, marked as
/// sabot/dataflow/quarantine.py marks those on which it raises.
std::unique_ptr<Step> MakeWorkerCall(std::shared_ptr<workers::WorkerPool> pool,
                                     std::shared_ptr<const workers::Function> function, workers::CallLimits limits,
                                     arrow::MemoryPool* memory = arrow::default_memory_pool(),
                                     bool keep_failed = false);

/// What a Status carries when the function raised in its worker: the failure in the bytes in which it came.
class WorkerFailure : public arrow::StatusDetail {
 public:
  explicit WorkerFailure(std::shared_ptr<const workers::SealedMemory> bytes) : bytes_(std::move(bytes)) {}
  const char* type_id() const override { return "sabot::WorkerFailure"; }
  std::string ToString() const override { return "failure in a worker"; }
  /// Borrowed; null where `status` carries none.
  static const workers::SealedMemory* Of(const arrow::Status& status);

 private:
  const std::shared_ptr<const workers::SealedMemory> bytes_;
};

}  // namespace sabot::operators
