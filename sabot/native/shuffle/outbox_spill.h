// What makes room in outboxes: chunks that wait for a slow peer go to disk, those first that will be sent last, so that
// they do not hold up what goes to others. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "sabot/native/memory/ledger.h"
#include "sabot/native/shuffle/outbox.h"
#include "sabot/native/spill/spill_writer.h"

namespace sabot::shuffle {

class OutboxSpill : public spill::SpillSource {
 public:
  explicit OutboxSpill(std::shared_ptr<memory::Ledger> ledger) : ledger_(std::move(ledger)) {}

  /// From now on what waits in the outbox may go to disk; its link may end at any time.
  void Add(const std::string& shuffle_id, std::weak_ptr<Outbox> outbox);
  /// The shuffles named `prefix` or below "prefix/" have ended: their files go.
  void EndPrefix(const std::string& prefix);

  /// About `bytes` of the outbox that has most in memory.
  std::unique_ptr<spill::SpillJob> TakeColdest(int64_t bytes, const std::shared_ptr<spill::SpillSpace>& space) override;

 private:
  class Spilling;

  const std::shared_ptr<memory::Ledger> ledger_;  // shared with all that count
  std::mutex mutex_;                              // guards the two below; a leaf
  std::multimap<std::string, std::weak_ptr<Outbox>> outboxes_;
  std::map<std::string, std::shared_ptr<spill::SpillGroup>> files_;  // by shuffle
};

}  // namespace sabot::shuffle
