// The agent's Arrow Flight server: receives chunks into the store, serves what is published, answers pings. Its
// handlers run in Flight's own threads: decode, verify, store, acknowledge; they never run Python and never enter a
// slot.
#pragma once

#include <arrow/flight/server.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/credits.h"
#include "sabot/native/shuffle/published_store.h"
#include "sabot/native/shuffle/stream_watch.h"

namespace sabot::shuffle {

class FlightServer : public arrow::flight::FlightServerBase {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 0;       // 0: any free one
    std::string agent;  // our address as others know it, for messages; set after Make where the port was 0
    uint64_t incarnation = 0;
    double open_wait_s = 10.0;  // how long a chunk waits for its shuffle to be opened
    int64_t batch_bytes_max = 4 << 20;
    StreamWatch::Options streams;
    std::shared_ptr<memory::Ledger> ledger;  // what credits are reserved in; null: there is no limit
    bool check_credits = true;               // a guard: tests switch it off to see it needed
    bool verify_checksums = true;            // a guard: tests switch it off to see it needed
  };

  /// Listens at once. kUsage where the address is taken or cannot be bound.
  static arrow::Result<std::unique_ptr<FlightServer>> Make(Options options, std::shared_ptr<ChunkStore> store,
                                                           std::shared_ptr<PublishedStore> published);
  ~FlightServer() override;
  /// Ends every handler's wait and the port; repeats do nothing.
  void Stop();
  size_t open_streams() const { return watch_.open(); }

  arrow::Status DoPut(const arrow::flight::ServerCallContext& context,
                      std::unique_ptr<arrow::flight::FlightMessageReader> reader,
                      std::unique_ptr<arrow::flight::FlightMetadataWriter> writer) override;
  arrow::Status DoGet(const arrow::flight::ServerCallContext& context, const arrow::flight::Ticket& request,
                      std::unique_ptr<arrow::flight::FlightDataStream>* stream) override;
  arrow::Status DoAction(const arrow::flight::ServerCallContext& context, const arrow::flight::Action& action,
                         std::unique_ptr<arrow::flight::ResultStream>* result) override;
  arrow::Status ListActions(const arrow::flight::ServerCallContext& context,
                            std::vector<arrow::flight::ActionType>* actions) override;

 private:
  FlightServer(Options options, std::shared_ptr<ChunkStore> store, std::shared_ptr<PublishedStore> published);

  arrow::Status Put(arrow::flight::FlightMessageReader* reader, arrow::flight::FlightMetadataWriter* writer);
  arrow::Status ReceiveChunks(const std::string& sender, arrow::flight::FlightMessageReader* reader,
                              arrow::flight::FlightMetadataWriter* writer);
  /// The answer to a request for more credit; comes within a second, granted or not.
  arrow::Result<Ack> AnswerRequest(std::string_view bytes, Credits::Stream* credit) const;
  arrow::Result<bool> ReceiveCredited(const ChunkHeader& header, const arrow::flight::FlightStreamChunk& message,
                                      const std::shared_ptr<arrow::Schema>& schema, Credits::Stream* credit);
  arrow::Result<bool> ReceiveOne(const ChunkHeader& header, const arrow::flight::FlightStreamChunk& message,
                                 const std::shared_ptr<arrow::Schema>& schema);
  arrow::Status ReceiveUpload(const std::string& name, const std::string& index,
                              arrow::flight::FlightMessageReader* reader, arrow::flight::FlightMetadataWriter* writer);
  arrow::Status ReceivePlainRows(const std::string& shuffle_id, const std::string& partition,
                                 arrow::flight::FlightMessageReader* reader,
                                 arrow::flight::FlightMetadataWriter* writer);
  arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> FindTicket(const std::string& ticket);
  arrow::Result<std::unique_ptr<arrow::flight::FlightDataStream>> OpenShare(const std::string& ticket,
                                                                            StreamWatch::Stream open);
  arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> ReadShuffle(const std::string& shuffle_id,
                                                                       int32_t partition);

  const Options options_;
  const std::shared_ptr<ChunkStore> store_;          // shared with the transport that reads it
  const std::shared_ptr<PublishedStore> published_;  // likewise
  Credits credits_;
  StreamWatch watch_;
  std::atomic<uint32_t> plain_tasks_{0};  // a counter alone: relaxed
  std::atomic<bool> stopped_{false};
};

}  // namespace sabot::shuffle
