// The limit of transport: a native Flight server that drops or keeps what it is sent, without a header, a checksum or a
// store, and a client that sends one batch again and again. Prints the seconds of each round.
//   flight_bench serve keep|drop          prints its port; ends with its standard input
//   flight_bench send PORT COUNT FILE     prints seconds; FILE is an Arrow IPC file with the batch
#include <arrow/api.h>
#include <arrow/flight/client.h>
#include <arrow/flight/server.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

namespace flight = arrow::flight;

void Die(const arrow::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

template <typename T>
T OrDie(arrow::Result<T> result) {
  Die(result.status());
  return std::move(result).ValueUnsafe();
}

class Server : public flight::FlightServerBase {
 public:
  explicit Server(bool keep) : keep_(keep) {}

  /// Reads to the end, answers each batch, and lets go of what it has kept when the stream ends.
  arrow::Status DoPut(const flight::ServerCallContext&, std::unique_ptr<flight::FlightMessageReader> reader,
                      std::unique_ptr<flight::FlightMetadataWriter> writer) override {
    std::vector<std::shared_ptr<arrow::RecordBatch>> kept;
    const auto answer = arrow::Buffer::FromString("ok");
    while (true) {
      ARROW_ASSIGN_OR_RAISE(flight::FlightStreamChunk chunk, reader->Next());
      if (chunk.data == nullptr) return arrow::Status::OK();
      if (keep_) kept.push_back(std::move(chunk.data));
      ARROW_RETURN_NOT_OK(writer->WriteMetadata(*answer));
    }
  }

 private:
  const bool keep_;
};

int Serve(bool keep) {
  Server server(keep);
  flight::FlightServerOptions options(OrDie(flight::Location::ForGrpcTcp("127.0.0.1", 0)));
  Die(server.Init(options));
  std::printf("%d\n", server.port());
  std::fflush(stdout);
  std::cin.get();
  Die(server.Shutdown());
  return 0;
}

int Send(int port, int count, const char* path) {
  const auto file = OrDie(arrow::ipc::RecordBatchFileReader::Open(OrDie(arrow::io::ReadableFile::Open(path))));
  const auto batch = OrDie(file->ReadRecordBatch(0));
  const auto schema = batch->schema();
  const auto client = OrDie(flight::FlightClient::Connect(OrDie(flight::Location::ForGrpcTcp("127.0.0.1", port))));
  const auto start = std::chrono::steady_clock::now();
  auto stream = OrDie(client->DoPut(flight::FlightDescriptor::Path({"bench"}), schema));
  std::shared_ptr<arrow::Buffer> answer;
  for (int i = 0; i < count; ++i) {
    Die(stream.writer->WriteRecordBatch(*batch));
    if (i >= 2) Die(stream.reader->ReadMetadata(&answer));  // two on the way, as ours has
  }
  Die(stream.writer->DoneWriting());
  for (int i = 0; i < std::min(count, 2); ++i) Die(stream.reader->ReadMetadata(&answer));
  Die(stream.writer->Close());
  std::printf("%.6f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "serve") == 0) return Serve(std::strcmp(argv[2], "keep") == 0);
  if (argc == 5 && std::strcmp(argv[1], "send") == 0) {
    return Send(std::atoi(argv[2]), std::atoi(argv[3]), argv[4]);
  }
  std::fprintf(stderr, "usage: flight_bench serve keep|drop, or flight_bench send PORT COUNT FILE\n");
  return 2;
}
