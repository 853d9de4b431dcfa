// The agent's Flight client: one link per peer and shuffle, audited pulls, pings. Thread-safe.
#pragma once

#include <arrow/flight/client.h>
#include <arrow/util/compression.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/shuffle/ended_names.h"
#include "sabot/native/shuffle/outbox_spill.h"
#include "sabot/native/shuffle/peer_link.h"
#include "sabot/native/shuffle/pulled.h"
#include "sabot/native/shuffle/share_ticket.h"

namespace sabot::shuffle {

class DataClient {
 public:
  struct Options {
    double stream_timeout_s = 30.0;                          // the deadline of each DoPut
    double resume_s = 2.0;                                   // how long a broken DoPut is tried again
    int streams_per_peer = 1;                                // DoPuts open at a time to one peer for one shuffle
    std::string compression;                                 // of rows on the wire: lz4, zstd, or empty
    std::shared_ptr<memory::Ledger> ledger;                  // counts what waits in outboxes; may be null
    arrow::MemoryPool* pool = arrow::default_memory_pool();  // for what comes back from disk to be sent
  };

  /// kUsage where there is no such compression.
  static arrow::Result<std::unique_ptr<DataClient>> Make(Options options);
  /// Ends every link; waits up to a stream's deadline for those at frozen peers.
  ~DataClient();

  /// The link to `address` for `shuffle_id`, opened at first use. kUsage where the address is no host:port, kCancelled
  /// where the shuffle has been ended: a link opened then would stay for good.
  arrow::Result<std::shared_ptr<PeerLink>> LinkTo(const std::string& shuffle_id, const std::string& address);
  /// Ends the links of the shuffles named `prefix` or below "prefix/"; returns at once.
  void EndPrefix(const std::string& prefix);
  void Close();
  /// Makes room in the outboxes, for a spill writer; null without a ledger.
  const std::shared_ptr<OutboxSpill>& outbox_spill() const { return spill_; }

  /// Pulls what `ticket` names, whole and audited, or fails: kPeerLost naming the address at the deadline.
  arrow::Result<std::shared_ptr<Pulled>> Fetch(const std::string& address, const std::string& ticket, double timeout_s);
  /// Pulls a share; its content sum is bound to `key_columns`. Ended by EndPulls, EndPrefix and Close: kPeerLost.
  arrow::Result<std::shared_ptr<Pulled>> FetchShare(const std::string& address, const ShareTicket& ticket,
                                                    const std::vector<int>& key_columns, double timeout_s);
  /// Ends what is being pulled of the shuffle from `address`, which is lost; a frozen peer would hold it to its
  /// deadline.
  void EndPulls(const std::string& shuffle_id, const std::string& address);
  /// The peer's incarnation. Where none comes in time, the next calls open connections of their own: one whose packets
  /// were dropped tries again only after as long as it has been silent.
  arrow::Result<uint64_t> Ping(const std::string& address, double timeout_s);

 private:
  struct Pull {
    std::string address;
    std::shared_ptr<arrow::flight::FlightStreamReader> reader;  // shared with the thread that reads
  };

  DataClient(Options options, std::shared_ptr<arrow::util::Codec> codec);
  /// Each `lane` has a connection of its own: the streams of one connection share its flow control.
  arrow::Result<std::shared_ptr<arrow::flight::FlightClient>> Connect(const std::string& address, size_t lane);
  /// Forgets the connections to `address`, unless `silent` has been left already; calls under way keep theirs.
  void Leave(const std::string& address, const std::shared_ptr<arrow::flight::FlightClient>& silent);

  const Options options_;
  const std::shared_ptr<arrow::util::Codec> codec_;  // shared with the links
  const std::string sender_;                         // tells our streams from those of others
  const std::shared_ptr<OutboxSpill> spill_;         // shared with the spill writer while that works
  std::mutex mutex_;                                 // guards all below; a leaf
  std::map<std::pair<std::string, size_t>, std::shared_ptr<arrow::flight::FlightClient>> clients_;
  int times_left_ = 0;  // tells connections from those that were left before
  std::map<std::pair<std::string, std::string>, std::shared_ptr<PeerLink>> links_;
  EndedNames ended_;
  std::multimap<std::string, Pull> pulls_;         // of shares, by shuffle
  std::vector<std::shared_ptr<PeerLink>> ending_;  // stopped, their threads not yet done
  bool closed_ = false;
};

/// host and port of "host:port" or "[v6]:port"; kUsage otherwise.
arrow::Result<std::pair<std::string, int>> SplitAddress(const std::string& address);

}  // namespace sabot::shuffle
