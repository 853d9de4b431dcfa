// The stores of one agent, and what makes room for them: their memory out of the ledger, the spill folders and the
// spill writer.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/published_store.h"

namespace sabot::shuffle {

struct SpillStats {
  int64_t bytes = 0;          // on disk now
  int64_t bytes_written = 0;  // since the start
};

class Stores {
 public:
  struct Options {
    std::shared_ptr<memory::Ledger> ledger;
    arrow::MemoryPool* pool = arrow::default_memory_pool();
    std::string agent;                       // for messages
    std::vector<std::string> spill_folders;  // none: nothing goes to disk
    int64_t spill_bytes_max = 0;             // 0: what the disks have
    uint64_t incarnation = 0;
    bool verify_loads = true;  // a guard: tests switch it off to see it needed
  };

  /// kUsage naming a spill folder that cannot be used.
  static arrow::Result<std::unique_ptr<Stores>> Make(const Options& options);
  ~Stores() { Stop(); }
  /// Ends the spill writer, frees what is held and removes the folders; repeats do nothing.
  void Stop();

  const std::shared_ptr<ChunkStore>& chunks() const { return chunks_; }
  const std::shared_ptr<PublishedStore>& published() const { return published_; }
  spill::SpillWriter* writer() const { return writer_.get(); }  // null where nothing goes to disk
  /// The writer asks `source`, too, after the stores.
  void AlsoSpill(std::weak_ptr<spill::SpillSource> source) const {
    if (writer_ != nullptr) writer_->AddSource(std::move(source));
  }
  /// Waits until nothing more goes to disk; false after `seconds`.
  bool WaitSpilled(double seconds) const { return writer_ == nullptr || writer_->WaitIdle(seconds); }
  SpillStats spill_stats() const;

 private:
  Stores() = default;

  std::shared_ptr<ChunkStore> chunks_;         // shared with the Flight server
  std::shared_ptr<PublishedStore> published_;  // likewise
  std::shared_ptr<spill::SpillSpace> space_;   // shared with its files
  std::unique_ptr<spill::SpillWriter> writer_;
};

}  // namespace sabot::shuffle
