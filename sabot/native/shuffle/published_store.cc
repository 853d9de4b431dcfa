#include "sabot/native/shuffle/published_store.h"

#include <algorithm>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

std::vector<std::shared_ptr<arrow::RecordBatch>> CutToSize(const std::shared_ptr<arrow::RecordBatch>& batch,
                                                           int64_t bytes, int64_t batch_bytes_max) {
  const int64_t count = std::max<int64_t>(1, (bytes + batch_bytes_max - 1) / batch_bytes_max);
  const int64_t rows_max = std::max<int64_t>(1, (batch->num_rows() + count - 1) / count);
  std::vector<std::shared_ptr<arrow::RecordBatch>> parts;
  for (int64_t start = 0; start < batch->num_rows(); start += rows_max) parts.push_back(batch->Slice(start, rows_max));
  return parts;
}

}  // namespace

arrow::Result<std::shared_ptr<const Published>> PublishedStore::Publish(
    const std::string& name, int64_t index, std::shared_ptr<arrow::Schema> schema,
    const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches, int64_t batch_bytes_max) {
  if (name.empty() || name.size() > kNameBytesMax) {
    return MakeStatus(Code::kUsage, "A published name is a text of 1 to " + std::to_string(kNameBytesMax) + " bytes.");
  }
  ARROW_RETURN_NOT_OK(DecodeNumber(std::to_string(index), "index").status());
  auto part = std::make_shared<Published>();
  part->schema = std::move(schema);
  part->published_at = std::chrono::steady_clock::now();
  for (const auto& batch : batches) {
    if (!batch->schema()->Equals(*part->schema, /*check_metadata=*/false)) {
      return MakeStatus(Code::kUsage, "A batch of " + name + " has the schema {" + batch->schema()->ToString() +
                                          "}, not {" + part->schema->ToString() + "}. Cast it.");
    }
    const int64_t bytes = RetainedBytes(*batch);
    if (batch->num_columns() > 0) {
      const std::vector<uint64_t> no_keys(static_cast<size_t>(batch->num_rows()), 0);
      ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(no_keys.data(), *batch->column(0)));
      part->content_sum += sum;
    }
    part->rows += batch->num_rows();
    part->bytes += bytes;
    for (auto& cut : CutToSize(batch, bytes, batch_bytes_max)) part->batches.push_back(std::move(cut));
  }
  std::lock_guard lock(mutex_);
  const auto [found, fresh] = parts_.try_emplace({name, index}, part);
  if (!fresh) {
    return MakeStatus(Code::kUsage, "Part " + std::to_string(index) + " of " + name +
                                        " is published already. Drop it first, or use another index.");
  }
  bytes_ += part->bytes;
  return std::shared_ptr<const Published>(part);
}

arrow::Result<std::shared_ptr<const Published>> PublishedStore::Find(const std::string& name, int64_t index) const {
  std::lock_guard lock(mutex_);
  const auto found = parts_.find({name, index});
  if (found != parts_.end()) return found->second;
  return MakeStatus(Code::kUsage, "Nothing is published as part " + std::to_string(index) + " of " + name +
                                      " on this agent: it was never registered here, or has been dropped.");
}

void PublishedStore::DropPrefix(const std::string& prefix) {
  std::vector<std::shared_ptr<const Published>> freed;  // freed outside the lock
  std::lock_guard lock(mutex_);
  for (auto entry = parts_.begin(); entry != parts_.end();) {
    if (!IsBelow(entry->first.first, prefix)) {
      ++entry;
      continue;
    }
    bytes_ -= entry->second->bytes;
    freed.push_back(std::move(entry->second));
    entry = parts_.erase(entry);
  }
}

std::vector<std::pair<std::string, double>> PublishedStore::NamesWithAge() const {
  const auto now = std::chrono::steady_clock::now();
  std::map<std::string, double> age_of;
  std::lock_guard lock(mutex_);
  for (const auto& [key, part] : parts_) {
    const double age_s = std::chrono::duration<double>(now - part->published_at).count();
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
