#include "sabot/native/shuffle/data_client.h"

#include <algorithm>
#include <limits>
#include <random>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/ping.h"
#include "sabot/native/shuffle/received_batch.h"
#include "sabot/native/shuffle/share_pull.h"
#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

namespace {

constexpr double kSignOfLifeS = 5.0;  // as long as an agent may take to answer a ping before a share is pulled

std::string RandomName() {
  std::random_device random;
  return std::to_string(random()) + "-" + std::to_string(random());
}

arrow::Status Lost(const std::string& address, double timeout_s, const arrow::Status& status) {
  if (const Code code = CodeOf(status); code != Code::kOther) return MakeStatus(code, PlainMessage(status));
  return MakeStatus(Code::kPeerLost, "Agent " + address + " did not answer within " +
                                         std::to_string(timeout_s).substr(0, 5) + " s, or broke off. Is it running? " +
                                         status.message() + " (address=" + address + ")");
}

flight::FlightCallOptions WithDeadline(double timeout_s) {
  flight::FlightCallOptions call;
  call.timeout = flight::TimeoutDuration(BoundedSeconds(timeout_s));
  return call;
}

/// Reads a DoGet to its end mark, checking rows and content sum on the way.
arrow::Result<std::shared_ptr<Pulled>> ReadMarked(flight::FlightStreamReader* reader, const std::string& address) {
  auto part = std::make_shared<Pulled>();
  ARROW_ASSIGN_OR_RAISE(part->schema, reader->GetSchema());
  ReadMark mark;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(const flight::FlightStreamChunk message, reader->Next());
    if (message.data == nullptr) break;
    if (message.app_metadata == nullptr) {
      return MakeStatus(Code::kPeerRefused, "Agent " + address + " sent a batch without its mark: it is not Sabot's.");
    }
    ARROW_ASSIGN_OR_RAISE(mark, DecodeReadMark(std::string_view(*message.app_metadata)));
    ARROW_ASSIGN_OR_RAISE(auto batch, AlignAndValidate(message.data));
    part->rows += batch->num_rows();
    ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(*batch, {}, 0));
    part->content_sum += sum;
    if (mark.rows != static_cast<uint64_t>(part->rows) || mark.content_sum != part->content_sum) {
      return MakeStatus(Code::kIntegrity, "Rows were lost or changed while being fetched (agent=" + address + ")");
    }
    if (batch->num_rows() > 0) part->batches.push_back(std::move(batch));
  }
  if (mark.last) return part;
  return MakeStatus(Code::kPeerLost,
                    "Agent " + address + " broke off before the end of the partition (address=" + address + ")");
}

}  // namespace

arrow::Result<std::pair<std::string, int>> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    const auto port = DecodeNumber(address.substr(colon + 1), "port");
    if (port.ok() && *port > 0 && *port <= 65535) return std::pair(address.substr(0, colon), static_cast<int>(*port));
  }
  return MakeStatus(Code::kUsage,
                    "\"" + address + "\" is no address. Write host:port, the port being the agent's Flight port.");
}

arrow::Result<std::unique_ptr<DataClient>> DataClient::Make(Options options) {
  std::shared_ptr<arrow::util::Codec> codec;
  if (!options.compression.empty()) {
    const bool lz4 = options.compression == "lz4";
    if (!lz4 && options.compression != "zstd") {
      return MakeStatus(Code::kUsage, "compression is \"" + options.compression + "\"; it must be none, lz4 or zstd.");
    }
    ARROW_ASSIGN_OR_RAISE(codec,
                          arrow::util::Codec::Create(lz4 ? arrow::Compression::LZ4_FRAME : arrow::Compression::ZSTD));
  }
  return std::unique_ptr<DataClient>(new DataClient(std::move(options), std::move(codec)));
}

DataClient::DataClient(Options options, std::shared_ptr<arrow::util::Codec> codec)
    : options_(std::move(options)),
      codec_(std::move(codec)),
      sender_(RandomName()),
      spill_(options_.ledger == nullptr ? nullptr : std::make_shared<OutboxSpill>(options_.ledger)) {}

DataClient::~DataClient() { Close(); }

void DataClient::Close() {
  decltype(clients_) clients;  // last to go: the links use them
  decltype(links_) links;
  decltype(ending_) ending;
  decltype(pulls_) pulls;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    pulls = pulls_;
    links.swap(links_);
    clients.swap(clients_);
    ending.swap(ending_);
  }
  for (auto& [key, pull] : pulls) pull.reader->Cancel();
  for (auto& [key, link] : links) link->Stop();
  links.clear();  // joins, outside the lock
  ending.clear();
}

arrow::Result<std::shared_ptr<flight::FlightClient>> DataClient::Connect(const std::string& address, size_t lane) {
  std::lock_guard lock(mutex_);
  const auto found = clients_.find({address, lane});
  if (found != clients_.end()) return found->second;
  ARROW_ASSIGN_OR_RAISE(const auto parts, SplitAddress(address));
  ARROW_ASSIGN_OR_RAISE(const auto location, flight::Location::ForGrpcTcp(parts.first, parts.second));
  flight::FlightClientOptions options = flight::FlightClientOptions::Defaults();
  // An agent that is back is found within a second, however long it was away. Channels with equal arguments share a
  // connection, hence the last two, which mean nothing to gRPC.
  options.generic_options = {{"grpc.enable_http_proxy", 0},
                             {"grpc.initial_reconnect_backoff_ms", 100},
                             {"grpc.max_reconnect_backoff_ms", 1000},
                             {"sabot.lane", static_cast<int>(lane)},
                             {"sabot.left", times_left_}};
  ARROW_ASSIGN_OR_RAISE(auto client, flight::FlightClient::Connect(location, options));
  return clients_.emplace(std::pair(address, lane), std::move(client)).first->second;
}

void DataClient::Leave(const std::string& address, const std::shared_ptr<flight::FlightClient>& silent) {
  decltype(clients_) left;  // closed outside the lock, where nobody else uses them
  std::lock_guard lock(mutex_);
  const auto first = clients_.find({address, 0});
  if (first == clients_.end() || first->second != silent) return;
  ++times_left_;
  const auto end = clients_.upper_bound({address, std::numeric_limits<size_t>::max()});
  for (auto client = first; client != end; client = clients_.erase(client)) left.insert(*client);
}

arrow::Result<std::shared_ptr<PeerLink>> DataClient::LinkTo(const std::string& shuffle_id, const std::string& address) {
  ARROW_RETURN_NOT_OK(SplitAddress(address).status());
  std::shared_ptr<PeerLink> failed;  // stopped outside the lock
  std::shared_ptr<PeerLink> link;
  bool made = false;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return MakeStatus(Code::kCancelled, "The shuffle client is closed.");
    if (ended_.Contains(shuffle_id)) {
      return MakeStatus(Code::kCancelled, "Shuffle " + shuffle_id + " was ended while it was being sent.");
    }
    std::shared_ptr<PeerLink>& known = links_[{shuffle_id, address}];
    if (known != nullptr && known->failed()) {
      failed = std::move(known);  // another attempt may find the peer again
      ending_.push_back(failed);
      known = nullptr;
    }
    if (known == nullptr) {
      PeerLink::Options options;
      options.outbox.peer = address;
      options.outbox.stream_timeout_s = options_.stream_timeout_s;
      options.outbox.resume_s = options_.resume_s;
      options.outbox.streams = static_cast<size_t>(std::max(1, options_.streams_per_peer));
      options.outbox.ledger = options_.ledger;
      options.codec = codec_;
      options.sender = sender_;
      options.outbox.pool = options_.pool;
      known = std::make_shared<PeerLink>([this, address](size_t lane) { return Connect(address, lane); }, options);
      made = true;
    }
    link = known;
  }
  if (made && spill_ != nullptr) spill_->Add(shuffle_id, link->outbox());
  if (failed != nullptr) failed->Stop();
  return link;
}

void DataClient::EndPrefix(const std::string& prefix) {
  std::vector<std::shared_ptr<PeerLink>> ending;  // stopped, and joined where that takes no time, outside the lock
  std::vector<std::shared_ptr<flight::FlightStreamReader>> pulls;
  {
    std::lock_guard lock(mutex_);
    ended_.Remember(prefix);
    for (const auto& [id, pull] : pulls_) {
      if (IsBelow(id, prefix)) pulls.push_back(pull.reader);
    }
    ending.swap(ending_);
    for (auto entry = links_.begin(); entry != links_.end();) {
      if (!IsBelow(entry->first.first, prefix)) {
        ++entry;
        continue;
      }
      ending.push_back(std::move(entry->second));
      entry = links_.erase(entry);
    }
  }
  if (spill_ != nullptr) spill_->EndPrefix(prefix);
  for (const auto& pull : pulls) pull->Cancel();
  for (const auto& link : ending) link->Stop();
  std::erase_if(ending, [](const std::shared_ptr<PeerLink>& link) { return link->ended(); });
  std::lock_guard lock(mutex_);
  ending_.insert(ending_.end(), ending.begin(), ending.end());
}

arrow::Result<std::shared_ptr<Pulled>> DataClient::Fetch(const std::string& address, const std::string& ticket,
                                                         double timeout_s) {
  ARROW_ASSIGN_OR_RAISE(auto client, Connect(address, 0));
  const auto read = [&]() -> arrow::Result<std::shared_ptr<Pulled>> {
    ARROW_ASSIGN_OR_RAISE(auto reader, client->DoGet(WithDeadline(timeout_s), flight::Ticket{ticket}));
    return ReadMarked(reader.get(), address);
  };
  auto part = read();
  if (part.ok()) return part;
  return Lost(address, timeout_s, part.status());
}

arrow::Result<std::shared_ptr<Pulled>> DataClient::FetchShare(const std::string& address, const ShareTicket& ticket,
                                                              const std::vector<int>& key_columns, double timeout_s) {
  ARROW_ASSIGN_OR_RAISE(auto client, Connect(address, 0));
  // Flight waits for the first message where nothing but the deadline ends it: a frozen peer is not to be asked at all.
  ARROW_RETURN_NOT_OK(Ping(address, std::min(timeout_s, kSignOfLifeS)).status());
  const auto read = [&]() -> arrow::Result<std::shared_ptr<Pulled>> {
    ARROW_ASSIGN_OR_RAISE(auto opened,
                          client->DoGet(WithDeadline(timeout_s), flight::Ticket{EncodeShareTicket(ticket)}));
    const std::shared_ptr<flight::FlightStreamReader> reader = std::move(opened);
    decltype(pulls_)::iterator entry;
    {
      std::lock_guard lock(mutex_);
      if (closed_ || ended_.Contains(ticket.shuffle_id)) {
        return MakeStatus(Code::kCancelled, "Shuffle " + ticket.shuffle_id + " was ended while it was being read.");
      }
      entry = pulls_.emplace(ticket.shuffle_id, Pull{address, reader});
    }
    auto share = ReadShare(reader.get(), address, key_columns);
    std::lock_guard lock(mutex_);
    pulls_.erase(entry);
    return share;
  };
  auto share = read();
  if (share.ok()) return share;
  return Lost(address, timeout_s, share.status());
}

void DataClient::EndPulls(const std::string& shuffle_id, const std::string& address) {
  std::vector<std::shared_ptr<flight::FlightStreamReader>> readers;  // cancelled outside the lock
  {
    std::lock_guard lock(mutex_);
    const auto [first, end] = pulls_.equal_range(shuffle_id);
    for (auto pull = first; pull != end; ++pull) {
      if (pull->second.address == address) readers.push_back(pull->second.reader);
    }
  }
  for (const auto& reader : readers) reader->Cancel();
}

arrow::Result<uint64_t> DataClient::Ping(const std::string& address, double timeout_s) {
  ARROW_ASSIGN_OR_RAISE(auto client, Connect(address, 0));
  const auto ask = [&]() -> arrow::Result<uint64_t> {
    flight::Action action;
    action.type = kPingAction;
    action.body = std::make_shared<arrow::Buffer>(nullptr, 0);
    ARROW_ASSIGN_OR_RAISE(auto answers, client->DoAction(WithDeadline(timeout_s), action));
    ARROW_ASSIGN_OR_RAISE(const auto answer, answers->Next());
    if (answer == nullptr || answer->body == nullptr) return arrow::Status::IOError("the answer was empty");
    return DecodePing(std::string_view(*answer->body));
  };
  auto incarnation = ask();
  if (incarnation.ok()) return incarnation;
  const auto detail = flight::FlightStatusDetail::UnwrapStatus(incarnation.status());
  if (detail != nullptr && detail->code() == flight::FlightStatusCode::TimedOut) Leave(address, client);
  return Lost(address, timeout_s, incarnation.status());
}

}  // namespace sabot::shuffle
