#include "sabot/native/shuffle/scatter_call.h"

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
                             const SlotUse& slots) {
  auto run = std::make_shared<ScatterRun>(batches, options, sender);
  ARROW_RETURN_NOT_OK(RunAndWait(slots, run, "partition rows"));
  return run->status();
}

}  // namespace sabot::shuffle
