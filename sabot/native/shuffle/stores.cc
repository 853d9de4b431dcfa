#include "sabot/native/shuffle/stores.h"

#include <malloc.h>

#include <system_error>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

// With less memory than this, what malloc keeps of freed messages is more than the tenth that an agent may pass it by.
constexpr int64_t kSmallMemory = 1 << 30;

/// gRPC receives into memory of malloc, past the ledger, and malloc keeps freed blocks of a message's size for each
/// thread apart: 50 MB with eight streams. They are to go back to the system at once, though taking them again costs
/// page faults.
void KeepNoFreedBlocks() {
#ifdef __GLIBC__
  (void)mallopt(M_MMAP_THRESHOLD, 256 << 10);
  (void)mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

}  // namespace

arrow::Result<std::unique_ptr<Stores>> Stores::Make(const Options& options) {
  std::unique_ptr<Stores> stores(new Stores());
  const int64_t bytes_max = options.ledger->bytes_max();
  if (bytes_max > 0 && bytes_max < kSmallMemory) KeepNoFreedBlocks();
  if (!options.spill_folders.empty()) {
    ARROW_ASSIGN_OR_RAISE(stores->space_, spill::SpillSpace::Make({.folders = options.spill_folders,
                                                                   .bytes_max = options.spill_bytes_max,
                                                                   .incarnation = options.incarnation,
                                                                   .verify_loads = options.verify_loads}));
    try {
      stores->writer_ = std::make_unique<spill::SpillWriter>(options.ledger, stores->space_);
    } catch (const std::system_error&) {
      return MakeNoThread("The thread that writes rows to disk cannot be started");
    }
  }
  stores->chunks_ =
      std::make_shared<ChunkStore>(ChunkStore::Options{{options.ledger, options.pool, memory::Account::kStore}});
  stores->published_ = std::make_shared<PublishedStore>(
      PublishedStore::Options{{options.ledger, options.pool, memory::Account::kResults}, options.agent});
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
