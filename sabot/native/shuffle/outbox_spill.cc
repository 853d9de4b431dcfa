#include "sabot/native/shuffle/outbox_spill.h"

#include <vector>

#include "sabot/native/shuffle/ended_names.h"

namespace sabot::shuffle {

/// Chunks of one outbox on their way to disk.
class OutboxSpill::Spilling : public spill::SpillJob {
 public:
  Spilling(std::string shuffle_id, std::string peer, std::vector<SendWindow::Message> messages,
           std::shared_ptr<spill::SpillGroup> files, std::shared_ptr<memory::Ledger> ledger)
      : shuffle_id_(std::move(shuffle_id)),
        peer_(std::move(peer)),
        messages_(std::move(messages)),
        files_(std::move(files)),
        ledger_(std::move(ledger)) {}

  spill::SpilledRun::Content TakeContent() override {
    spill::SpilledRun::Content content{.name = shuffle_id_,
                                       .agent = peer_,
                                       .schema = messages_.front()->schema,
                                       .chunks = {},
                                       .pieces = {},
                                       .coalesce = false};
    for (const SendWindow::Message& message : messages_) {
      const auto chunk = static_cast<uint32_t>(content.chunks.size());
      const Ack& of = message->awaited;
      content.chunks.push_back({of.task, of.attempt, of.sequence, /*from_network=*/false});
      content.pieces.push_back({0, chunk, message->rows->in_memory()});
    }
    return content;
  }
  spill::SpillGroup& group() override { return *files_; }
  void Written(std::shared_ptr<const spill::SpilledRun> run) override {
    for (size_t i = 0; i < messages_.size(); ++i) {
      messages_[i]->rows->Swap(run, static_cast<uint32_t>(i));
      if (const int64_t held = messages_[i]->rows->TakeHeld()) ledger_->Drop(memory::Account::kOutbox, held);
    }
    messages_.clear();
  }
  void Failed(const arrow::Status&) override { messages_.clear(); }  // they stay in memory, and are sent from there

 private:
  const std::string shuffle_id_;
  const std::string peer_;
  std::vector<SendWindow::Message> messages_;
  const std::shared_ptr<spill::SpillGroup> files_;  // shared with the shuffle's other jobs
  const std::shared_ptr<memory::Ledger> ledger_;
};

void OutboxSpill::Add(const std::string& shuffle_id, std::weak_ptr<Outbox> outbox) {
  std::lock_guard lock(mutex_);
  std::erase_if(outboxes_, [](const auto& known) { return known.second.expired(); });
  outboxes_.emplace(shuffle_id, std::move(outbox));
}

void OutboxSpill::EndPrefix(const std::string& prefix) {
  std::vector<std::shared_ptr<spill::SpillGroup>> ended;  // outside the lock
  {
    std::lock_guard lock(mutex_);
    std::erase_if(outboxes_, [&](const auto& known) { return IsBelow(known.first, prefix); });
    for (auto entry = files_.begin(); entry != files_.end();) {
      if (!IsBelow(entry->first, prefix)) {
        ++entry;
        continue;
      }
      ended.push_back(std::move(entry->second));
      entry = files_.erase(entry);
    }
  }
  for (const auto& files : ended) files->Unlink();
}

std::unique_ptr<spill::SpillJob> OutboxSpill::TakeColdest(int64_t bytes,
                                                          const std::shared_ptr<spill::SpillSpace>& space) {
  std::vector<std::pair<std::string, std::shared_ptr<Outbox>>> outboxes;  // asked outside our lock, which is a leaf
  {
    std::lock_guard lock(mutex_);
    for (const auto& [shuffle_id, known] : outboxes_) {
      if (auto outbox = known.lock()) outboxes.emplace_back(shuffle_id, std::move(outbox));
    }
  }
  int64_t most = 0;
  const std::pair<std::string, std::shared_ptr<Outbox>>* fullest = nullptr;
  for (const auto& entry : outboxes) {
    const int64_t waiting = entry.second->BytesForDisk();
    if (waiting <= most) continue;
    most = waiting;
    fullest = &entry;
  }
  if (fullest == nullptr) return nullptr;
  auto messages = fullest->second->ClaimForDisk(bytes);
  if (messages.empty()) return nullptr;
  std::lock_guard lock(mutex_);
  if (!outboxes_.contains(fullest->first)) return nullptr;  // ended meanwhile
  std::shared_ptr<spill::SpillGroup>& files = files_[fullest->first];
  if (files == nullptr) files = std::make_shared<spill::SpillGroup>(space);
  return std::make_unique<Spilling>(fullest->first, fullest->second->options().peer, std::move(messages), files,
                                    ledger_);
}

}  // namespace sabot::shuffle
