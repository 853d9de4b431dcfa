#include "sabot/native/shuffle/data_client.h"

#include <algorithm>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/ping.h"
#include "sabot/native/shuffle/received_batch.h"
#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

namespace {

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
arrow::Result<std::shared_ptr<Published>> ReadMarked(flight::FlightStreamReader* reader, const std::string& address) {
  auto part = std::make_shared<Published>();
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
    if (batch->num_columns() > 0) {
      const std::vector<uint64_t> no_keys(static_cast<size_t>(batch->num_rows()), 0);
      ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(no_keys.data(), *batch->column(0)));
      part->content_sum += sum;
    }
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

DataClient::~DataClient() { Close(); }

void DataClient::Close() {
  decltype(clients_) clients;  // last to go: the links use them
  decltype(links_) links;
  decltype(ending_) ending;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    links.swap(links_);
    clients.swap(clients_);
    ending.swap(ending_);
  }
  for (auto& [key, link] : links) link->Stop();
  links.clear();  // joins, outside the lock
  ending.clear();
}

arrow::Result<std::shared_ptr<flight::FlightClient>> DataClient::Connect(const std::string& address) {
  std::lock_guard lock(mutex_);
  const auto found = clients_.find(address);
  if (found != clients_.end()) return found->second;
  ARROW_ASSIGN_OR_RAISE(const auto parts, SplitAddress(address));
  ARROW_ASSIGN_OR_RAISE(const auto location, flight::Location::ForGrpcTcp(parts.first, parts.second));
  flight::FlightClientOptions options = flight::FlightClientOptions::Defaults();
  // An agent that is back is found within a second, however long it was away.
  options.generic_options = {{"grpc.enable_http_proxy", 0},
                             {"grpc.initial_reconnect_backoff_ms", 100},
                             {"grpc.max_reconnect_backoff_ms", 1000}};
  ARROW_ASSIGN_OR_RAISE(auto client, flight::FlightClient::Connect(location, options));
  return clients_.emplace(address, std::move(client)).first->second;
}

arrow::Result<std::shared_ptr<PeerLink>> DataClient::LinkTo(const std::string& shuffle_id, const std::string& address) {
  ARROW_RETURN_NOT_OK(SplitAddress(address).status());
  std::lock_guard lock(mutex_);
  if (closed_) return MakeStatus(Code::kCancelled, "The shuffle client is closed.");
  if (ended_.Contains(shuffle_id)) {
    return MakeStatus(Code::kCancelled, "Shuffle " + shuffle_id + " was ended while it was being sent.");
  }
  std::shared_ptr<PeerLink>& link = links_[{shuffle_id, address}];
  if (link != nullptr && link->failed()) {
    link->Stop();  // another attempt may find its peer again
    ForgetEndedLocked();
    ending_.push_back(std::move(link));
  }
  if (link == nullptr) {
    PeerLink::Options options;
    options.peer = address;
    options.stream_timeout_s = options_.stream_timeout_s;
    options.resume_s = options_.resume_s;
    link = std::make_shared<PeerLink>([this, address] { return Connect(address); }, options);
  }
  return link;
}

void DataClient::ForgetEndedLocked() {
  std::erase_if(ending_, [](const std::shared_ptr<PeerLink>& link) { return link->ended(); });
}

void DataClient::EndPrefix(const std::string& prefix) {
  std::lock_guard lock(mutex_);
  ForgetEndedLocked();
  ended_.Remember(prefix);
  for (auto entry = links_.begin(); entry != links_.end();) {
    if (!IsBelow(entry->first.first, prefix)) {
      ++entry;
      continue;
    }
    entry->second->Stop();
    ending_.push_back(std::move(entry->second));
    entry = links_.erase(entry);
  }
}

arrow::Result<std::shared_ptr<Published>> DataClient::Fetch(const std::string& address, const std::string& ticket,
                                                            double timeout_s) {
  ARROW_ASSIGN_OR_RAISE(auto client, Connect(address));
  const auto read = [&]() -> arrow::Result<std::shared_ptr<Published>> {
    ARROW_ASSIGN_OR_RAISE(auto reader, client->DoGet(WithDeadline(timeout_s), flight::Ticket{ticket}));
    return ReadMarked(reader.get(), address);
  };
  auto part = read();
  if (part.ok()) return part;
  return Lost(address, timeout_s, part.status());
}

arrow::Result<uint64_t> DataClient::Ping(const std::string& address, double timeout_s) {
  ARROW_ASSIGN_OR_RAISE(auto client, Connect(address));
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
  return Lost(address, timeout_s, incarnation.status());
}

}  // namespace sabot::shuffle
