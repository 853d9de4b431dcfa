// What Cython cannot say: functions with captures, and waits in seconds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sabot/native/shuffle/attempt_sender.h"
#include "sabot/native/shuffle/data_client.h"
#include "sabot/native/shuffle/processing.h"
#include "sabot/native/shuffle/slot_call.h"

namespace sabot::shuffle {

/// Calls a Python processor with the GIL; `result` stays null for no rows. False where it raised, which
/// it keeps itself; it never throws.
using ProcessorCall = bool (*)(void* processor, const std::shared_ptr<arrow::RecordBatch>& rows,
                               std::shared_ptr<arrow::RecordBatch>* result);

using ProcessorRelease = void (*)(void* processor);

/// `store` and `client` must outlive the sender.
inline std::shared_ptr<AttemptSender> MakeSender(AttemptSender::Options options, ChunkStore* store,
                                                 DataClient* client) {
  const std::string shuffle_id = options.shuffle_id;
  return std::make_shared<AttemptSender>(std::move(options), store, [client, shuffle_id](const std::string& address) {
    return client->LinkTo(shuffle_id, address);
  });
}

/// Owns one reference to `processor`, given back by `release` once the shuffle has ended and no slot is inside it.
inline std::shared_ptr<Processing> MakeProcessing(std::shared_ptr<slots::SlotPool> pool, slots::JobShare share,
                                                  ProcessorCall call, void* processor, ProcessorRelease release) {
  return std::make_shared<Processing>(
      std::move(pool), std::move(share),
      [call, held = std::shared_ptr<void>(processor, release)](
          const std::shared_ptr<arrow::RecordBatch>& rows) -> arrow::Result<std::shared_ptr<arrow::RecordBatch>> {
        std::shared_ptr<arrow::RecordBatch> result;
        if (!call(held.get(), rows, &result)) return arrow::Status::Invalid("The processor raised.");
        return result;
      });
}

inline SlotUse SlotUseFor(slots::SlotPool* pool, slots::JobShare share, double timeout_s) {
  return {pool, std::move(share), DeadlineIn(timeout_s)};
}

inline ChunkStore::Arrival ArrivalOf(const std::shared_ptr<Processing>& processing) {
  return [processing](const std::vector<Piece>& pieces) { processing->Arrive(pieces); };
}

inline arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> ProcessedResults(
    const std::shared_ptr<Processing>& processing, const std::vector<Piece>& pieces, double timeout_s) {
  return processing->Results(pieces, DeadlineIn(timeout_s));
}

inline arrow::Result<bool> WaitConfirmedFor(AttemptSender* sender, double timeout_s) {
  return sender->WaitConfirmed(DeadlineIn(timeout_s));
}

inline arrow::Result<bool> WaitSendersFor(ChunkStore* store, const std::string& shuffle_id, double timeout_s) {
  return store->WaitSenders(shuffle_id, DeadlineIn(timeout_s));
}

}  // namespace sabot::shuffle
