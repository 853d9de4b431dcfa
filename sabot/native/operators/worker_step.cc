#include "sabot/native/operators/worker_step.h"

#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/options.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <arrow/util/key_value_metadata.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstring>

#include "sabot/native/rows/validation.h"
#include "sabot/native/status.h"

namespace sabot::operators {
namespace {

using workers::CallEnd;
using workers::CallResult;
using workers::SealedMemory;

/// A worker's memory as an Arrow buffer, mapped as long as any array refers to it.
class WorkerBuffer final : public arrow::Buffer {
 public:
  explicit WorkerBuffer(std::shared_ptr<const SealedMemory> memory)
      : Buffer(memory->data(), static_cast<int64_t>(memory->size())), memory_(std::move(memory)) {}

 private:
  const std::shared_ptr<const SealedMemory> memory_;
};

arrow::ipc::IpcWriteOptions WriteOptions() {
  auto options = arrow::ipc::IpcWriteOptions::Defaults();
  options.use_threads = false;  // the slot is the thread
  options.emit_dictionary_deltas = false;
  return options;
}

/// Writes `rows` as an IPC stream.
arrow::Status WriteStream(const Rows& rows, arrow::io::OutputStream* sink) {
  ARROW_ASSIGN_OR_RAISE(auto writer, arrow::ipc::MakeStreamWriter(sink, rows->schema(), WriteOptions()));
  ARROW_RETURN_NOT_OK(writer->WriteRecordBatch(*rows));
  return writer->Close();
}

/// The bytes that a worker has answered with, out of its reach.
arrow::Result<std::shared_ptr<arrow::Buffer>> BytesOf(CallResult result, arrow::MemoryPool* memory) {
  if (result.answer == nullptr) return std::make_shared<WorkerBuffer>(std::move(result.memory));
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> copy,
                        arrow::AllocateBuffer(static_cast<int64_t>(result.answer_bytes), memory));
  std::memcpy(copy->mutable_data(), result.answer->data(), result.answer_bytes);
  return copy;
}

/// The one batch of an IPC stream, without a copy, checked in full: whoever wrote it is not trusted.
arrow::Result<Rows> ReadStream(std::shared_ptr<arrow::Buffer> bytes) {
  arrow::io::BufferReader source(std::move(bytes));
  auto options = arrow::ipc::IpcReadOptions::Defaults();
  options.use_threads = false;
  ARROW_ASSIGN_OR_RAISE(auto reader, arrow::ipc::RecordBatchStreamReader::Open(&source, options));
  Rows rows;
  Rows more;
  ARROW_RETURN_NOT_OK(reader->ReadNext(&rows));
  if (rows == nullptr) return arrow::Status::Invalid("the stream has no batch");
  ARROW_RETURN_NOT_OK(reader->ReadNext(&more));
  if (more != nullptr) return arrow::Status::Invalid("the stream has more than one batch");
  ARROW_RETURN_NOT_OK(rows::ValidateRows(*rows));
  return rows;
}

std::string HowItEnded(int wait_status) {
  if (wait_status == -1) return "ended (cause=unknown";
  if (WIFSIGNALED(wait_status)) {
    const char* name = sigabbrev_np(WTERMSIG(wait_status));
    return std::string("was killed by SIG") + (name == nullptr ? "?" : name) +
           " (signal=" + std::to_string(WTERMSIG(wait_status));
  }
  const std::string code = std::to_string(WEXITSTATUS(wait_status));
  return "ended with exit code " + code + " (exit_code=" + code;
}

/// The rows as they are, with what went wrong in their schema's metadata.
Rows Marked(const Rows& rows, const std::string& error, const std::string& message) {
  return rows->ReplaceSchemaMetadata(arrow::key_value_metadata(
      {"sabot.error_type", "sabot.error_message", "sabot.error_traceback"}, {"sabot.errors." + error, message, ""}));
}

class WorkerStep final : public Step {
 public:
  WorkerStep(std::shared_ptr<workers::WorkerPool> pool, std::shared_ptr<const workers::Function> function,
             workers::CallLimits limits, arrow::MemoryPool* memory, bool keep_failed)
      : pool_(std::move(pool)),
        function_(std::move(function)),
        limits_(limits),
        memory_(memory),
        keep_failed_(keep_failed) {}

  arrow::Result<Rows> Run(const Rows& rows, const Place& place) const override {
    arrow::io::MockOutputStream measured;
    ARROW_RETURN_NOT_OK(WriteStream(rows, &measured));
    const int64_t size = measured.GetExtentBytesWritten();
    arrow::Status written;
    const auto write = [&](uint8_t* memory) {
      arrow::io::FixedSizeBufferWriter sink(std::make_shared<arrow::MutableBuffer>(memory, size));
      written = WriteStream(rows, &sink);
      return written.ok();
    };
    const workers::Caller caller{place.slot_id, place.morsel, place.run, place.interrupted};
    CallResult result = pool_->Call(caller, *function_, static_cast<size_t>(size), write, limits_);
    ARROW_RETURN_NOT_OK(written);
    const CallEnd end = result.end;
    auto outcome = Outcome(std::move(result), place);
    if (!keep_failed_ || (end != CallEnd::kDied && end != CallEnd::kTimedOut)) return outcome;
    return Marked(rows, end == CallEnd::kDied ? "TaskFailed" : "LimitReached", PlainMessage(outcome.status()));
  }

  void Interrupt(const void* run) const noexcept override { pool_->Interrupt(run); }

 private:
  arrow::Result<Rows> Outcome(CallResult result, const Place& place) const {
    switch (result.end) {
      case CallEnd::kNoRows:
        return Rows();
      case CallEnd::kRows: {
        ARROW_ASSIGN_OR_RAISE(auto bytes, BytesOf(std::move(result), memory_));
        auto rows = ReadStream(std::move(bytes));
        if (rows.ok()) return rows;
        return Failed(Code::kTaskFailed, "gave rows that are not valid: " + rows.status().message(), place, " (");
      }
      case CallEnd::kFailure:
        return arrow::Status(arrow::StatusCode::UnknownError, "the function raised in its worker",
                             std::make_shared<WorkerFailure>(std::move(result.memory)));
      case CallEnd::kDied:
        return Failed(Code::kTaskFailed, "lost its worker process, which " + HowItEnded(result.wait_status) + ", ",
                      place, "");
      case CallEnd::kTimedOut:
        return Failed(Code::kLimit,
                      "ran longer than its limit of " + std::to_string(limits_.timeout.count()) +
                          " ms a morsel and was killed; give it a higher timeout_s or smaller morsels",
                      place, " (timeout_ms=" + std::to_string(limits_.timeout.count()) + ", ");
      case CallEnd::kCancelled:
        return Failed(Code::kCancelled, "was cancelled in mid-call", place, " (");
      case CallEnd::kNoWorker:
        return Failed(Code::kTaskFailed, "got no worker process: " + result.why, place, " (");
      case CallEnd::kBroken:
        break;
    }
    return Failed(Code::kTaskFailed, "has a worker that cannot be trusted any more: " + result.why, place, " (");
  }

  /// "<function> <what> (<facts>)", as the funnel into Python reads it.
  arrow::Status Failed(Code code, const std::string& what, const Place& place, const std::string& facts) const {
    std::string name = function_->name;
    for (char& character : name) {
      if (std::strchr("(),", character) != nullptr) character = ' ';
    }
    return MakeStatus(code, "the function " + function_->name + " " + what + facts + "function=" + name +
                                ", morsel=" + std::to_string(place.morsel) + ")");
  }

  const std::shared_ptr<workers::WorkerPool> pool_;
  const std::shared_ptr<const workers::Function> function_;
  const workers::CallLimits limits_;
  arrow::MemoryPool* const memory_;
  const bool keep_failed_;
};

}  // namespace

std::unique_ptr<Step> MakeWorkerCall(std::shared_ptr<workers::WorkerPool> pool,
                                     std::shared_ptr<const workers::Function> function, workers::CallLimits limits,
                                     arrow::MemoryPool* memory, bool keep_failed) {
  return std::make_unique<WorkerStep>(std::move(pool), std::move(function), limits, memory, keep_failed);
}

const SealedMemory* WorkerFailure::Of(const arrow::Status& status) {
  const auto* detail = dynamic_cast<const WorkerFailure*>(status.detail().get());
  return detail == nullptr ? nullptr : detail->bytes_.get();
}

}  // namespace sabot::operators
