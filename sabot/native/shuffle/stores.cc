#include "sabot/native/shuffle/stores.h"

#include <utility>

namespace sabot::shuffle {

arrow::Result<std::unique_ptr<Stores>> Stores::Make(const Options& options) {
  std::unique_ptr<Stores> stores(new Stores());
  std::function<void()> pressed;
  if (!options.spill_folders.empty()) {
    ARROW_ASSIGN_OR_RAISE(stores->space_, spill::SpillSpace::Make({.folders = options.spill_folders,
                                                                   .bytes_max = options.spill_bytes_max,
                                                                   .incarnation = options.incarnation,
                                                                   .verify_loads = options.verify_loads}));
    stores->writer_ = std::make_unique<spill::SpillWriter>(options.ledger, stores->space_);
    pressed = [writer = stores->writer_.get()] { writer->Wake(); };
  }
  stores->chunks_ = std::make_shared<ChunkStore>(
      ChunkStore::Options{{options.ledger, options.pool, memory::Account::kStore}, pressed});
  stores->published_ = std::make_shared<PublishedStore>(
      PublishedStore::Options{{options.ledger, options.pool, memory::Account::kResults}, pressed, options.agent});
  if (stores->writer_ != nullptr) {
    stores->writer_->AddSource(stores->chunks_);
    stores->writer_->AddSource(stores->published_);
  }
  return stores;
}

void Stores::Stop() {
  if (writer_ != nullptr) writer_->Stop();
  if (chunks_ != nullptr) chunks_->EndAll();
  if (published_ != nullptr) published_->DropAll();
  if (space_ != nullptr) space_->RemoveFolders();
}

SpillStats Stores::spill_stats() const {
  return space_ == nullptr ? SpillStats{} : SpillStats{space_->bytes(), space_->bytes_written()};
}

}  // namespace sabot::shuffle
