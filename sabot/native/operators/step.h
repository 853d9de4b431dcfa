// One thing done to the rows of a morsel: keep some, compute columns, or call into Python.
#pragma once

#include <arrow/compute/expression.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>
#include <arrow/status.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace sabot::operators {

/// Null: no rows, and no schema either.
using Rows = std::shared_ptr<arrow::RecordBatch>;

/// Which morsel of which run a step works on, in which slot. `interrupted` (may be null) turns true, and Interrupt is
/// called, when nobody wants the answer any more.
struct Place {
  int slot_id = 0;
  size_t morsel = 0;
  const void* run = nullptr;
  const std::atomic<bool>* interrupted = nullptr;
};

/// Immutable to its callers and run by several slots at once. Works in the calling thread alone.
class Step {
 public:
  virtual ~Step() = default;
  /// `rows` is not null.
  virtual arrow::Result<Rows> Run(const Rows& rows, const Place& place) const = 0;
  /// Ends early what works for `run` elsewhere than in the slot's own thread.
  virtual void Interrupt(const void* run) const noexcept {}
  virtual bool takes_gil() const { return false; }
};

/// Keeps the rows for which `expression` is true; null drops a row. Not boolean: TypeError when it meets a schema.
std::unique_ptr<Step> MakeFilter(arrow::compute::Expression expression,
                                 arrow::MemoryPool* memory = arrow::default_memory_pool());

/// Replaces the columns by as many `expressions` as `names`.
std::unique_ptr<Step> MakeProject(std::vector<std::string> names, std::vector<arrow::compute::Expression> expressions,
                                  arrow::MemoryPool* memory = arrow::default_memory_pool());

/// A filter where `expression` is boolean for the schema it meets, else a projection to one column called `name`.
std::unique_ptr<Step> MakeFilterOrColumn(arrow::compute::Expression expression, std::string name,
                                         arrow::MemoryPool* memory = arrow::default_memory_pool());

/// How native code calls into Python and lets go of what is Python's, without knowing Python. The functions take the
/// GIL themselves, `call` tells GilWait when it has it, and never throw (Cython cannot write noexcept in their types).
struct PythonHooks {
  void (*enter_slot)();  // before the first of the others on a slot's thread; repeats are cheap
  /// Exactly one of `*result` (null: no rows) and `*exception` (a new reference) is meant.
  void (*call)(void* function, const Rows& rows, Rows* result, void** exception);
  void (*release)(void* object);
};

/// Calls a Python function; an exception becomes a Status with a PythonException. Takes over a reference to `function`.
std::unique_ptr<Step> MakeCall(PythonHooks hooks, void* function);

/// What a Status carries when Python raised: the exception itself.
class PythonException : public arrow::StatusDetail {
 public:
  explicit PythonException(std::shared_ptr<void> exception) : exception_(std::move(exception)) {}
  const char* type_id() const override { return "sabot::PythonException"; }
  std::string ToString() const override { return "Python exception"; }
  /// Borrowed; null where `status` carries none.
  static void* Of(const arrow::Status& status);

 private:
  const std::shared_ptr<void> exception_;
};

}  // namespace sabot::operators
