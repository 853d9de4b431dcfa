#include "sabot/native/shuffle/published_store.h"

#include <algorithm>
#include <utility>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/row_readers.h"
#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

arrow::Result<std::shared_ptr<Published>> PublishedStore::Keep(const std::string& name, int64_t index,
                                                               std::shared_ptr<arrow::Schema> schema,
                                                               std::vector<std::shared_ptr<arrow::RecordBatch>> batches,
                                                               int64_t batch_bytes_max, bool ours) const {
  if (name.empty() || name.size() > kNameBytesMax) {
    return MakeStatus(Code::kUsage, "A published name is a text of 1 to " + std::to_string(kNameBytesMax) + " bytes.");
  }
  ARROW_RETURN_NOT_OK(DecodeNumber(std::to_string(index), "index").status());
  {
    std::lock_guard lock(mutex_);
    if (const auto found = no_room_.find(name); found != no_room_.end()) return found->second;
  }
  auto part = std::make_shared<Published>();
  part->schema = std::move(schema);
  part->published_at = std::chrono::steady_clock::now();
  for (auto& given : batches) {
    const auto batch = std::move(given);  // gone, as far as it is ours, before the next is copied
    if (!batch->schema()->Equals(*part->schema, /*check_metadata=*/false)) {
      return MakeStatus(Code::kUsage, "A batch of " + name + " has the schema {" + batch->schema()->ToString() +
                                          "}, not {" + part->schema->ToString() + "}. Cast it.");
    }
    ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(*batch, {}, 0));
    part->content_sum += sum;
    part->rows += batch->num_rows();
    const auto cuts = CutToSize(batch, batch_bytes_max);
    if (ours && cuts.size() == 1) {
      part->bytes += RetainedBytes(*batch);
      part->batches.push_back(std::make_shared<spill::KeptRows>(batch));
      continue;
    }
    for (const auto& cut : cuts) {
      // What it is a slice of, or a Flight client's message, would be kept whole.
      ARROW_ASSIGN_OR_RAISE(auto copy, spill::CopyRows(*cut, options_.blocks));
      part->bytes += RetainedBytes(*copy);
      part->batches.push_back(std::make_shared<spill::KeptRows>(std::move(copy)));
    }
  }
  return part;
}

namespace {

// A disk that is full is written to once in so long, however often room is asked for.
constexpr std::chrono::seconds kRetryAfter{1};

std::string PartOf(const std::string& name, int64_t index) { return "part " + std::to_string(index) + " of " + name; }

}  // namespace

arrow::Result<std::shared_ptr<const Published>> PublishedStore::Publish(
    const std::string& name, int64_t index, std::shared_ptr<arrow::Schema> schema,
    std::vector<std::shared_ptr<arrow::RecordBatch>> batches, int64_t batch_bytes_max, bool ours) {
  ARROW_ASSIGN_OR_RAISE(auto part, Keep(name, index, std::move(schema), std::move(batches), batch_bytes_max, ours));
  {
    std::lock_guard lock(mutex_);
    const auto [found, fresh] = parts_.try_emplace({name, index}, Part{.published = part});
    if (!fresh) {
      return MakeStatus(Code::kUsage, "Part " + std::to_string(index) + " of " + name +
                                          " is published already. Drop it first, or use another index.");
    }
    bytes_ += part->bytes;
  }
  TellFreeable();
  return std::shared_ptr<const Published>(part);
}

arrow::Status PublishedStore::Add(const std::string& name, int64_t index, std::shared_ptr<arrow::Schema> schema,
                                  std::vector<std::shared_ptr<arrow::RecordBatch>> batches, int64_t batch_bytes_max) {
  ARROW_ASSIGN_OR_RAISE(const auto more,
                        Keep(name, index, std::move(schema), std::move(batches), batch_bytes_max, /*ours=*/false));
  {
    std::lock_guard lock(mutex_);
    const auto [found, fresh] = parts_.try_emplace({name, index}, Part{.published = more, .grows = true});
    Part& part = found->second;
    if (!fresh) {
      if (!part.grows)
        return MakeStatus(Code::kUsage, "No rows can be added to " + PartOf(name, index) + ", which is published.");
      if (!part.published->schema->Equals(*more->schema, /*check_metadata=*/false)) {
        return MakeStatus(Code::kUsage, "The rows of " + PartOf(name, index) + " have several schemas. Cast them.");
      }
      std::ranges::copy(more->batches, std::back_inserter(part.published->batches));
      part.published->rows += more->rows;
      part.published->content_sum += more->content_sum;
      part.published->bytes += more->bytes;
    }
    bytes_ += more->bytes;
  }
  TellFreeable();
  return arrow::Status::OK();
}

arrow::Result<std::shared_ptr<const Published>> PublishedStore::Finish(const std::string& name, int64_t index) {
  std::lock_guard lock(mutex_);
  const auto found = parts_.find({name, index});
  if (found == parts_.end() || !found->second.grows) {
    return MakeStatus(Code::kUsage, "Nothing was added to " + PartOf(name, index) + ", or it is published already.");
  }
  found->second.grows = false;
  return std::shared_ptr<const Published>(found->second.published);
}

void PublishedStore::Abandon(const std::string& name, int64_t index) {
  std::shared_ptr<const Published> freed;  // outside the lock
  std::lock_guard lock(mutex_);
  const auto found = parts_.find({name, index});
  if (found == parts_.end() || !found->second.grows) return;
  bytes_ -= found->second.published->bytes;
  freed = std::move(found->second.published);
  parts_.erase(found);
}

void PublishedStore::TellFreeable() const {
  if (options_.blocks.ledger != nullptr) options_.blocks.ledger->TellFreeable();
}

arrow::Result<std::shared_ptr<const Published>> PublishedStore::Find(const std::string& name, int64_t index) const {
  std::lock_guard lock(mutex_);
  const auto found = parts_.find({name, index});
  if (found != parts_.end() && !found->second.grows) return std::shared_ptr<const Published>(found->second.published);
  return MakeStatus(Code::kUsage, "Nothing is published as part " + std::to_string(index) + " of " + name +
                                      " on this agent: it was never registered here, or has been dropped.");
}

void PublishedStore::DropPrefix(const std::string& prefix) {
  DropThose([&](const std::string& name) { return IsBelow(name, prefix); });
}

void PublishedStore::DropAll() {
  DropThose([](const std::string&) { return true; });
}

void PublishedStore::DropThose(const std::function<bool(const std::string&)>& named) {
  std::vector<std::shared_ptr<const Published>> freed;  // both are freed outside the lock
  std::vector<std::shared_ptr<spill::SpillGroup>> files;
  {
    std::lock_guard lock(mutex_);
    for (auto entry = parts_.begin(); entry != parts_.end();) {
      if (!named(entry->first.first)) {
        ++entry;
        continue;
      }
      bytes_ -= entry->second.published->bytes;
      freed.push_back(std::move(entry->second.published));
      entry = parts_.erase(entry);
    }
    std::erase_if(no_room_, [&](const auto& entry) { return named(entry.first); });
    for (auto entry = files_.begin(); entry != files_.end();) {
      if (!named(entry->first)) {
        ++entry;
        continue;
      }
      files.push_back(std::move(entry->second));
      entry = files_.erase(entry);
    }
  }
  for (const auto& group : files) group->Unlink();
}

/// Some batches of one part on their way to disk. Made under the store's lock.
class PublishedStore::Spilling : public spill::SpillJob {
 public:
  Spilling(std::shared_ptr<PublishedStore> store, std::pair<std::string, int64_t> key,
           std::shared_ptr<const Published> part, std::shared_ptr<spill::SpillGroup> files, size_t first, int64_t bytes)
      : store_(std::move(store)),
        key_(std::move(key)),
        part_(std::move(part)),
        files_(std::move(files)),
        first_(first) {
    for (size_t i = first; i < part_->batches.size() && bytes > 0; ++i) {
      kept_.push_back(part_->batches[i]);
      batches_.push_back(kept_.back()->in_memory());
      bytes -= RetainedBytes(*batches_.back());
    }
  }

  spill::SpilledRun::Content TakeContent() override {
    spill::SpilledRun::Content content{.name = key_.first,
                                       .agent = store_->options_.agent,
                                       .schema = part_->schema,
                                       .chunks = {spill::ChunkTag{}},
                                       .pieces = {},
                                       .coalesce = false};
    for (const auto& batch : batches_) content.pieces.push_back({static_cast<uint32_t>(key_.second), 0, batch});
    return content;
  }
  spill::SpillGroup& group() override { return *files_; }
  void Written(std::shared_ptr<const spill::SpilledRun> run) override {
    for (size_t i = 0; i < batches_.size(); ++i) kept_[i]->Swap(run, static_cast<uint32_t>(i));
    store_->Swapped(key_.first, key_.second, part_, first_ + batches_.size());
    batches_.clear();
  }
  void Failed(const arrow::Status& status) override { store_->Stuck(key_.first, key_.second, part_, status); }

 private:
  const std::shared_ptr<PublishedStore> store_;  // shared with the server
  const std::pair<std::string, int64_t> key_;
  const std::shared_ptr<const Published> part_;  // shared with the store, which may drop it meanwhile
  const std::shared_ptr<spill::SpillGroup> files_;
  const size_t first_;
  std::vector<std::shared_ptr<spill::KeptRows>> kept_;  // the part itself may grow meanwhile
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches_;
};

void PublishedStore::BeginRound() {
  std::lock_guard lock(mutex_);
  may_retry_ = std::chrono::steady_clock::now() >= retry_at_;
}

std::unique_ptr<spill::SpillJob> PublishedStore::TakeColdest(int64_t bytes,
                                                             const std::shared_ptr<spill::SpillSpace>& space) {
  std::lock_guard lock(mutex_);
  auto coldest = parts_.end();
  for (auto entry = parts_.begin(); entry != parts_.end(); ++entry) {
    const Part& part = entry->second;
    if ((part.stuck && !may_retry_) || part.spilled == part.published->batches.size()) continue;
    // What is stuck comes after all that has not been tried.
    const auto rank = [](const Part& one) { return std::pair(one.stuck, one.published->published_at); };
    if (coldest == parts_.end() || rank(part) < rank(coldest->second)) coldest = entry;
  }
  if (coldest == parts_.end()) return nullptr;
  std::shared_ptr<spill::SpillGroup>& files = files_[coldest->first.first];
  if (files == nullptr) files = std::make_shared<spill::SpillGroup>(space);
  return std::make_unique<Spilling>(shared_from_this(), coldest->first, coldest->second.published, files,
                                    coldest->second.spilled, bytes);
}

void PublishedStore::Swapped(const std::string& name, int64_t index, const std::shared_ptr<const Published>& part,
                             size_t count) {
  std::lock_guard lock(mutex_);
  const auto found = parts_.find({name, index});
  if (found == parts_.end() || found->second.published != part) return;
  found->second.spilled = count;
  if (!std::exchange(found->second.stuck, false)) return;
  const bool others =
      std::ranges::any_of(parts_, [&](const auto& entry) { return entry.first.first == name && entry.second.stuck; });
  if (!others) no_room_.erase(name);
}

void PublishedStore::Stuck(const std::string& name, int64_t index, const std::shared_ptr<const Published>& part,
                           const arrow::Status& status) {
  std::lock_guard lock(mutex_);
  may_retry_ = false;
  retry_at_ = std::chrono::steady_clock::now() + kRetryAfter;
  const auto found = parts_.find({name, index});
  if (found == parts_.end() || found->second.published != part) return;
  found->second.stuck = true;
  if (CodeOf(status) == Code::kLimit) no_room_.emplace(name, status);
}

std::vector<std::pair<std::string, double>> PublishedStore::NamesWithAge() const {
  const auto now = std::chrono::steady_clock::now();
  std::map<std::string, double> age_of;
  std::lock_guard lock(mutex_);
  for (const auto& [key, part] : parts_) {
    const double age_s = std::chrono::duration<double>(now - part.published->published_at).count();
    double& oldest = age_of[key.first];
    oldest = std::max(oldest, age_s);
  }
  return {age_of.begin(), age_of.end()};
}

int64_t PublishedStore::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace sabot::shuffle
