#include "sabot/native/shuffle/chunk_store.h"

#include <arrow/array.h>

#include <algorithm>
#include <limits>
#include <set>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

void AddBuffers(const arrow::ArrayData& data, std::set<const void*>* seen, int64_t* bytes) {
  for (const auto& buffer : data.buffers) {
    if (buffer == nullptr) continue;
    const arrow::Buffer* root = buffer.get();
    while (root->parent() != nullptr) root = root->parent().get();
    if (seen->insert(root).second) *bytes += root->capacity();
  }
  for (const auto& child : data.child_data) AddBuffers(*child, seen, bytes);
  if (data.dictionary != nullptr) AddBuffers(*data.dictionary, seen, bytes);
}

constexpr int32_t kEveryPartition = -1;

}  // namespace

int64_t RetainedBytes(const arrow::RecordBatch& batch) {
  std::set<const void*> seen;
  int64_t bytes = 0;
  for (int i = 0; i < batch.num_columns(); ++i) AddBuffers(*batch.column_data(i), &seen, &bytes);
  return bytes;
}

/// Appends the chunk's stretches as slices: those of `partition` only, or all.
void ChunkStore::AppendPieces(const StoredChunk& chunk, int32_t partition, std::vector<Piece>* pieces) {
  int64_t start = 0;
  for (const Stretch& stretch : chunk.stretches) {
    if (partition == kEveryPartition || partition == stretch.partition) {
      pieces->push_back(
          {chunk.batch->Slice(start, stretch.rows), chunk.source, chunk.attempt, chunk.sequence, stretch.partition});
    }
    start += stretch.rows;
  }
}

arrow::Status ChunkStore::Open(Spec spec) {
  std::lock_guard lock(mutex_);
  const std::string id = spec.book.shuffle_id;
  if (ended_.Contains(id)) {
    return MakeStatus(Code::kUsage, "Shuffle " + id + " has ended on this agent. Start another one under a new id.");
  }
  const auto found = shuffles_.find(id);
  if (found == shuffles_.end()) {
    shuffles_.emplace(id, std::make_shared<Shuffle>(std::move(spec)));
    ++stats_.shuffles;
    changed_.notify_all();
    return arrow::Status::OK();
  }
  const Bookkeeping::Options& open = found->second->book.options();
  const bool same = open.num_partitions == spec.book.num_partitions && open.owner_count == spec.book.owner_count &&
                    open.my_owner == spec.book.my_owner && open.sender_count == spec.book.sender_count &&
                    !spec.arrival && !found->second->arrival;
  if (same) return arrow::Status::OK();
  return MakeStatus(
      Code::kUsage,
      "Shuffle " + id + " is open already with other partitions or agents. End it first, or " + "use another id.");
}

arrow::Status ChunkStore::Reown(const std::string& shuffle_id, OwnerTable table) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(const std::shared_ptr<Shuffle> shuffle, FindLocked(shuffle_id));
  shuffle->book.Reown(std::move(table));
  changed_.notify_all();
  return arrow::Status::OK();
}

arrow::Status ChunkStore::WaitOpen(const std::string& shuffle_id, uint32_t epoch, Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const auto settled = [&] {
    if (closed_ || ended_.Contains(shuffle_id)) return true;
    const auto found = shuffles_.find(shuffle_id);
    return found != shuffles_.end() && found->second->book.options().table.epoch >= epoch;
  };
  const bool in_time = changed_.wait_until(lock, deadline, settled);
  if (closed_ || (!in_time && !shuffles_.contains(shuffle_id))) {
    return MakeStatus(Code::kPeerRefused, "Shuffle " + shuffle_id + " is not known to this agent" +
                                              (closed_ ? ", which is shutting down."
                                                       : ": it was not started here before the sender's deadline."));
  }
  return FindLocked(shuffle_id).status();
}

arrow::Result<std::shared_ptr<ChunkStore::Shuffle>> ChunkStore::FindLocked(const std::string& shuffle_id) {
  const auto found = shuffles_.find(shuffle_id);
  if (found != shuffles_.end()) {
    ARROW_RETURN_NOT_OK(found->second->failure);
    return found->second;
  }
  const std::string why = ended_.Contains(shuffle_id) ? " has ended" : " is not known; start it first";
  return MakeStatus(Code::kPeerRefused, "Shuffle " + shuffle_id + why + " on this agent.");
}

arrow::Status ChunkStore::CheckSchema(const Shuffle& shuffle, const arrow::Schema& schema) {
  if (shuffle.schema == nullptr || shuffle.schema->Equals(schema, /*check_metadata=*/false)) return arrow::Status::OK();
  return MakeStatus(Code::kUsage, "Rows of another schema were sent into shuffle " + shuffle.book.options().shuffle_id +
                                      ": it has {" + shuffle.schema->ToString() + "}, these have {" +
                                      schema.ToString() + "}. Cast them to one schema.");
}

arrow::Result<bool> ChunkStore::Put(const ChunkHeader& header, std::shared_ptr<arrow::RecordBatch> batch,
                                    slots::Source source) {
  if (source == slots::Source::kLocal) {
    // A slice of a scatter would keep all of it, and its memory is wanted for the next one.
    ARROW_ASSIGN_OR_RAISE(batch, spill::CopyRows(*batch, options_.blocks));
  }
  auto chunk = std::make_shared<StoredChunk>();
  chunk->attempt = {header.task, header.attempt};
  chunk->sequence = header.sequence;
  chunk->source = source;
  chunk->bytes = RetainedBytes(*batch);
  if (batch->num_rows() > std::numeric_limits<uint32_t>::max()) {
    return MakeStatus(Code::kLimit, "A chunk has " + std::to_string(batch->num_rows()) +
                                        " rows; it may have 4294967295. Send fewer rows at a time.");
  }
  chunk->stretches.reserve(header.extents.size());
  for (const rows::Extent& extent : header.extents) {
    chunk->stretches.push_back({extent.partition, static_cast<uint32_t>(extent.rows)});
  }
  chunk->batch = std::move(batch);
  Arrival arrival;
  {
    std::lock_guard lock(mutex_);
    ARROW_ASSIGN_OR_RAISE(const ShufflePtr shuffle, FindLocked(header.shuffle_id));
    ARROW_RETURN_NOT_OK(CheckSchema(*shuffle, *chunk->batch->schema()));
    if (source == slots::Source::kNetwork) {
      ++stats_.chunks_received;
      stats_.bytes_received += chunk->bytes;
    }
    Judgement judgement = shuffle->book.OfferChunk(header, chunk->batch->num_rows());
    if (judgement.verdict == Verdict::kRefused) return judgement.status;
    if (judgement.verdict == Verdict::kRepeated) {
      ++stats_.chunks_repeated;
      return true;
    }
    if (shuffle->schema == nullptr) shuffle->schema = chunk->batch->schema();
    chunk->arrival = next_arrival_++;
    const uint32_t number = shuffle->next_chunk++;
    shuffle->chunks.emplace(number, chunk);
    for (const Stretch& stretch : chunk->stretches) shuffle->chunks_of[stretch.partition].push_back(number);
    shuffle->bytes_came += chunk->bytes;
    shuffle->rows_came += chunk->batch->num_rows();
    stats_.stored_bytes += chunk->bytes;
    ++stats_.stored_chunks;
    arrival = shuffle->arrival;
  }
  if (arrival) {
    std::vector<Piece> pieces;
    AppendPieces(*chunk, kEveryPartition, &pieces);
    arrival(pieces);
  }
  if (options_.blocks.ledger != nullptr) options_.blocks.ledger->TellFreeable();
  return false;
}

arrow::Result<bool> ChunkStore::PutManifest(const ChunkHeader& header, std::shared_ptr<arrow::Schema> schema) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Shuffle> shuffle, FindLocked(header.shuffle_id));
  if (header.has_schema) ARROW_RETURN_NOT_OK(CheckSchema(*shuffle, *schema));
  Judgement judgement = shuffle->book.OfferManifest(header);
  if (judgement.verdict == Verdict::kRefused) return judgement.status;
  if (header.has_schema && shuffle->schema == nullptr) shuffle->schema = std::move(schema);
  changed_.notify_all();
  return judgement.verdict == Verdict::kRepeated;
}

arrow::Result<bool> ChunkStore::WaitSenders(const std::string& shuffle_id, Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (closed_) return MakeStatus(Code::kCancelled, "The agent is shutting down while a partition was awaited.");
    {
      // Not held over the wait: the last to let go of a shuffle frees its rows, which may need the GIL, while those who
      // have the GIL may wait for our lock.
      ARROW_ASSIGN_OR_RAISE(const std::shared_ptr<Shuffle> shuffle, FindLocked(shuffle_id));
      if (shuffle->book.options().sender_count == 0) {
        return MakeStatus(Code::kUsage, "Shuffle " + shuffle_id +
                                            " belongs to a job and is read by its tasks only. Read the "
                                            "job's result instead.");
      }
      if (shuffle->book.SendersFinished()) return true;
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) return false;
  }
}

arrow::Result<std::vector<AttemptKey>> ChunkStore::ConfirmedAttempts(const std::string& shuffle_id) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Shuffle> shuffle, FindLocked(shuffle_id));
  return shuffle->book.ConfirmedAttempts();
}

arrow::Result<PartitionContents> ChunkStore::Take(const std::string& shuffle_id, int32_t partition,
                                                  const std::vector<AttemptKey>& attempts) {
  PartitionContents contents;
  contents.attempts = {attempts.begin(), attempts.end()};
  std::vector<Piece> pieces;
  {
    std::lock_guard lock(mutex_);
    ARROW_ASSIGN_OR_RAISE(const ShufflePtr shuffle, FindLocked(shuffle_id));
    if (!shuffle->book.OwnsOrDid(partition) && !shuffle->chunks_of.contains(partition)) {
      return MakeStatus(Code::kUsage, "Partition " + std::to_string(partition) + " of shuffle " + shuffle_id +
                                          " is not held by this agent. Ask the agent that owns it (agent=" +
                                          shuffle->book.options().agent + ")");
    }
    ARROW_ASSIGN_OR_RAISE(contents.promised, shuffle->book.Promised(partition, attempts));
    contents.schema = shuffle->schema;
    contents.num_partitions = shuffle->book.options().num_partitions;
    contents.layout = shuffle->book.layout().value_or(Layout{});
    AppendSpilled(*shuffle, partition, &contents);
    contents.row_bytes = shuffle->rows_came == 0 ? 0.0 : shuffle->mean_row_bytes();
    const auto found = shuffle->chunks_of.find(partition);
    if (found != shuffle->chunks_of.end()) {
      for (const uint32_t number : found->second) {
        const StoredChunk& chunk = *shuffle->chunks.at(number);
        if (contents.attempts.contains(chunk.attempt)) AppendPieces(chunk, partition, &pieces);
      }
    }
  }
  std::ranges::stable_sort(pieces, [](const Piece& left, const Piece& right) {
    return std::tie(left.attempt, left.sequence) < std::tie(right.attempt, right.sequence);
  });
  for (Piece& piece : pieces) contents.parts.push_back({std::move(piece), nullptr, 0});
  return contents;
}

arrow::Result<bool> ChunkStore::Holds(const std::string& shuffle_id, int32_t partition) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<Shuffle> shuffle, FindLocked(shuffle_id));
  return shuffle->book.OwnsOrDid(partition) || shuffle->chunks_of.contains(partition);
}

arrow::Result<int64_t> ChunkStore::BytesOf(const std::string& shuffle_id, int32_t partition) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(const ShufflePtr shuffle, FindLocked(shuffle_id));
  int64_t rows = 0;
  const auto found = shuffle->chunks_of.find(partition);
  if (found != shuffle->chunks_of.end()) {
    for (const uint32_t number : found->second) {
      for (const Stretch& stretch : shuffle->chunks.at(number)->stretches) {
        rows += stretch.partition == partition ? stretch.rows : 0;
      }
    }
  }
  rows += SpilledRows(*shuffle, partition);
  return rows == 0 ? 0 : static_cast<int64_t>(shuffle->mean_row_bytes() * static_cast<double>(rows));
}

arrow::Result<int64_t> ChunkStore::SpilledBytesOf(const std::string& shuffle_id, int32_t partition) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(const ShufflePtr shuffle, FindLocked(shuffle_id));
  const int64_t rows = SpilledRows(*shuffle, partition);
  return rows == 0 ? 0 : static_cast<int64_t>(shuffle->mean_row_bytes() * static_cast<double>(rows));
}

int64_t ChunkStore::SpilledRows(const Shuffle& shuffle, int32_t partition) {
  int64_t rows = 0;
  for (const auto& run : shuffle.runs) {
    const auto [first, end] = run->SegmentsOf(static_cast<uint32_t>(partition));
    for (uint32_t segment = first; segment < end; ++segment) rows += run->segment_rows(segment);
  }
  return rows;
}

arrow::Result<double> ChunkStore::RowBytesOf(const std::string& shuffle_id) {
  std::lock_guard lock(mutex_);
  ARROW_ASSIGN_OR_RAISE(const ShufflePtr shuffle, FindLocked(shuffle_id));
  return shuffle->rows_came == 0 ? 0.0 : shuffle->mean_row_bytes();
}

void ChunkStore::EndPrefix(const std::string& prefix) {
  {
    std::lock_guard lock(mutex_);
    ended_.Remember(prefix);
  }
  EndThose([&](const std::string& id) { return IsBelow(id, prefix); });
}

void ChunkStore::EndAll() {
  EndThose([](const std::string&) { return true; });
}

void ChunkStore::EndThose(const std::function<bool(const std::string&)>& named) {
  std::vector<ShufflePtr> freed;  // outside the lock: gigabytes take their time
  std::vector<Rows> rows;
  {
    std::lock_guard lock(mutex_);
    for (auto entry = shuffles_.begin(); entry != shuffles_.end();) {
      if (!named(entry->first)) {
        ++entry;
        continue;
      }
      entry->second->ended = true;
      rows.push_back(EmptyLocked(entry->second.get()));
      --stats_.shuffles;
      ended_.Remember(entry->first);
      freed.push_back(std::move(entry->second));
      entry = shuffles_.erase(entry);
    }
    changed_.notify_all();
  }
  for (const ShufflePtr& shuffle : freed) {
    if (shuffle->files != nullptr) shuffle->files->Unlink();
  }
}

void ChunkStore::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

StoreStats ChunkStore::stats() const {
  std::lock_guard lock(mutex_);
  StoreStats stats = stats_;
  for (const auto& [id, shuffle] : shuffles_) {
    stats.index_bytes += shuffle->book.index_bytes();
    for (const auto& [number, chunk] : shuffle->chunks) {
      stats.index_bytes += static_cast<int64_t>(sizeof(StoredChunk) + chunk->stretches.capacity() * sizeof(Stretch));
    }
    for (const auto& [partition, numbers] : shuffle->chunks_of) {
      stats.index_bytes += static_cast<int64_t>(sizeof(numbers) + numbers.capacity() * sizeof(uint32_t));
    }
  }
  return stats;
}

}  // namespace sabot::shuffle
