#include "sabot/native/shuffle/processing.h"

#include "sabot/native/status.h"

namespace sabot::shuffle {

class Processing::ArrivalRun : public slots::Run {
 public:
  ArrivalRun(std::shared_ptr<Processing> processing, std::vector<Piece> pieces)
      : processing_(std::move(processing)), pieces_(std::move(pieces)) {}

  size_t item_count() const noexcept override { return pieces_.size(); }
  slots::Source source_of(size_t index) const noexcept override { return pieces_[index].source; }
  void RunItem(size_t index, int, int64_t) noexcept override {
    processing_->Keep(pieces_[index], processing_->function_(pieces_[index].rows));
  }
  void SkipItem(size_t index) noexcept override {
    processing_->Keep(pieces_[index], MakeStatus(Code::kCancelled, "The slots were shut down before a processor ran."));
  }
  void Finished() noexcept override {}

 private:
  const std::shared_ptr<Processing> processing_;  // shared with the store's arrival hook
  const std::vector<Piece> pieces_;
};

void Processing::Arrive(const std::vector<Piece>& pieces) {
  auto run = std::make_shared<ArrivalRun>(shared_from_this(), pieces);
  if (pool_->Submit(run, share_) == slots::Outcome::kAccepted) return;
  for (size_t i = 0; i < pieces.size(); ++i) run->SkipItem(i);
}

void Processing::Keep(const Piece& piece, arrow::Result<std::shared_ptr<arrow::RecordBatch>> result) {
  std::lock_guard lock(mutex_);
  results_.insert_or_assign(KeyOf(piece), std::move(result));
  changed_.notify_all();
}

arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> Processing::Results(const std::vector<Piece>& pieces,
                                                                                    Clock::time_point deadline) {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  std::unique_lock lock(mutex_);
  for (const Piece& piece : pieces) {
    const Key key = KeyOf(piece);
    if (!changed_.wait_until(lock, deadline, [&] { return results_.contains(key); })) {
      return MakeStatus(Code::kLimit,
                        "A shuffle's processor did not finish within the reader's deadline. Give "
                        "receive_partition a larger timeout_s.");
    }
    ARROW_ASSIGN_OR_RAISE(auto batch, results_.at(key));
    if (batch != nullptr) batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace sabot::shuffle
