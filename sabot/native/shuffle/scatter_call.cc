#include "sabot/native/shuffle/scatter_call.h"

#include "sabot/native/shuffle/slot_call.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

class ScatterRun : public AwaitedRun {
 public:
  ScatterRun(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches, const rows::ScatterOptions& options,
             std::shared_ptr<AttemptSender> sender)
      : batches_(batches), options_(options), sender_(std::move(sender)) {}

  size_t item_count() const noexcept override { return 1; }
  slots::Source source_of(size_t) const noexcept override { return slots::Source::kLocal; }
  void RunItem(size_t, int, int64_t) noexcept override { status_ = ScatterRows(); }
  const arrow::Status& status() const { return status_; }

 private:
  arrow::Status ScatterRows() {
    ARROW_ASSIGN_OR_RAISE(const auto chunks, rows::Scatter(batches_, options_));
    return sender_->Send(chunks);
  }

  const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches_;  // outlive the run: the caller waits for it
  const rows::ScatterOptions& options_;
  const std::shared_ptr<AttemptSender> sender_;
  arrow::Status status_;
};

}  // namespace

arrow::Status ScatterAndSend(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches,
                             const rows::ScatterOptions& options, const std::shared_ptr<AttemptSender>& sender,
                             slots::SlotPool* pool) {
  auto run = std::make_shared<ScatterRun>(batches, options, sender);
  if (!RunAndWait(pool, run)) {
    return MakeStatus(Code::kCancelled, "The slots were shut down while rows were being partitioned.");
  }
  return run->status();
}

}  // namespace sabot::shuffle
