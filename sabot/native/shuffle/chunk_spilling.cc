// The chunk store as a source of rows for the spill writer.
#include <algorithm>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"

namespace sabot::shuffle {

/// Chunks of one shuffle on their way to disk. Readers find them in memory until they are there.
class ChunkStore::Spilling : public spill::SpillJob {
 public:
  Spilling(std::shared_ptr<ChunkStore> store, ShufflePtr shuffle, std::shared_ptr<spill::SpillGroup> files,
           Chunks chunks)
      : store_(std::move(store)), shuffle_(std::move(shuffle)), files_(std::move(files)), chunks_(std::move(chunks)) {}

  spill::SpilledRun::Content TakeContent() override {
    spill::SpilledRun::Content content;
    content.name = shuffle_->book.options().shuffle_id;
    content.agent = shuffle_->book.options().agent;
    content.schema = chunks_.begin()->second->batch->schema();
    std::vector<const StoredChunk*> sorted;
    for (const auto& [number, chunk] : chunks_) sorted.push_back(chunk.get());
    std::ranges::sort(sorted, {}, [](const StoredChunk* chunk) { return std::pair(chunk->attempt, chunk->sequence); });
    for (const StoredChunk* chunk : sorted) {
      const auto index = static_cast<uint32_t>(content.chunks.size());
      content.chunks.push_back(
          {chunk->attempt.task, chunk->attempt.attempt, chunk->sequence, chunk->source == slots::Source::kNetwork});
      int64_t start = 0;
      for (const Stretch& stretch : chunk->stretches) {
        if (stretch.rows > 0) {
          content.pieces.push_back(
              {static_cast<uint32_t>(stretch.partition), index, chunk->batch->Slice(start, stretch.rows)});
        }
        start += stretch.rows;
      }
    }
    return content;
  }
  spill::SpillGroup& group() override { return *files_; }
  void Written(std::shared_ptr<const spill::SpilledRun> run) override {
    store_->Swap(shuffle_, chunks_, std::move(run));
  }
  void Failed(const arrow::Status& status) override { store_->Fail(shuffle_, status); }

 private:
  const std::shared_ptr<ChunkStore> store_;  // shared with the server
  const ShufflePtr shuffle_;                 // shared with the store, which may end it meanwhile
  const std::shared_ptr<spill::SpillGroup> files_;
  const Chunks chunks_;
};

std::unique_ptr<spill::SpillJob> ChunkStore::TakeColdest(int64_t bytes,
                                                         const std::shared_ptr<spill::SpillSpace>& space) {
  std::lock_guard lock(mutex_);
  ShufflePtr coldest;
  for (const auto& [id, shuffle] : shuffles_) {
    // With a processor the rows are in its hands as well: nothing would be freed.
    if (shuffle->chunks.empty() || shuffle->arrival) continue;
    const uint64_t arrival = shuffle->chunks.begin()->second->arrival;
    if (coldest == nullptr || arrival < coldest->chunks.begin()->second->arrival) coldest = shuffle;
  }
  if (coldest == nullptr) return nullptr;
  if (coldest->files == nullptr) coldest->files = std::make_shared<spill::SpillGroup>(space);
  Chunks taken;
  for (const auto& [number, chunk] : coldest->chunks) {
    if (bytes <= 0) break;
    bytes -= chunk->bytes;
    taken.emplace(number, chunk);
  }
  return std::make_unique<Spilling>(shared_from_this(), coldest, coldest->files, std::move(taken));
}

void ChunkStore::Swap(const ShufflePtr& shuffle, const Chunks& chunks, std::shared_ptr<const spill::SpilledRun> run) {
  std::set<int32_t> partitions;
  for (const auto& [number, chunk] : chunks) {
    for (const Stretch& stretch : chunk->stretches) partitions.insert(stretch.partition);
  }
  std::lock_guard lock(mutex_);
  if (shuffle->ended || !shuffle->failure.ok()) return;
  for (const auto& [number, chunk] : chunks) {
    shuffle->chunks.erase(number);  // it lives on with the job until the lock is let go
    stats_.stored_bytes -= chunk->bytes;
    --stats_.stored_chunks;
    ++stats_.chunks_spilled;
  }
  for (const int32_t partition : partitions) {
    std::vector<uint32_t>& numbers = shuffle->chunks_of[partition];  // empty, it still says that the partition is here
    std::erase_if(numbers, [&](uint32_t number) { return chunks.contains(number); });
    numbers.shrink_to_fit();
  }
  shuffle->runs.push_back(std::move(run));
}

void ChunkStore::Fail(const ShufflePtr& shuffle, const arrow::Status& status) {
  Rows freed;
  {
    std::lock_guard lock(mutex_);
    if (shuffle->ended) return;
    shuffle->failure = status;
    freed = EmptyLocked(shuffle.get());
    changed_.notify_all();
  }
  shuffle->files->Unlink();
}

ChunkStore::Rows ChunkStore::EmptyLocked(Shuffle* shuffle) {
  for (const auto& [number, chunk] : shuffle->chunks) {
    stats_.stored_bytes -= chunk->bytes;
    --stats_.stored_chunks;
  }
  shuffle->chunks_of.clear();
  return {std::exchange(shuffle->chunks, {}), std::exchange(shuffle->runs, {})};
}

void ChunkStore::AppendSpilled(const Shuffle& shuffle, int32_t partition, PartitionContents* contents) {
  for (const auto& run : shuffle.runs) {
    const auto [first, end] = run->SegmentsOf(static_cast<uint32_t>(partition));
    for (uint32_t segment = first; segment < end; ++segment) {
      const auto wanted = [&](const spill::ChunkTag& chunk) {
        return contents->attempts.contains({chunk.task, chunk.attempt});
      };
      const auto chunks = run->ChunksIn(segment);
      if (std::ranges::any_of(chunks, wanted)) {
        contents->parts.push_back({{nullptr, slots::Source::kLocal, {}, 0, partition}, run, segment});
      }
    }
  }
}

}  // namespace sabot::shuffle
