#include <string_view>
#include <utility>

#include "sabot/native/operators/step.h"
#include "sabot/native/slots/item_note.h"

namespace sabot::operators {
namespace {

class CallStep final : public Step {
 public:
  CallStep(PythonHooks hooks, void* function) : hooks_(hooks), function_(function, hooks.release) {}

  arrow::Result<Rows> Run(const Rows& rows, const Place& place) const override {
    slots::GilWait::Begin();
    hooks_.enter_slot();
    Rows result;
    void* exception = nullptr;
    hooks_.call(function_.get(), rows, &result, &exception);
    if (exception == nullptr) return result;
    std::shared_ptr<void> owned(exception, hooks_.release);
    return arrow::Status(arrow::StatusCode::UnknownError, "the Python function raised",
                         std::make_shared<PythonException>(std::move(owned)));
  }

  bool takes_gil() const override { return true; }

 private:
  const PythonHooks hooks_;
  const std::shared_ptr<void> function_;
};

}  // namespace

std::unique_ptr<Step> MakeCall(PythonHooks hooks, void* function) {
  return std::make_unique<CallStep>(hooks, function);
}

void* PythonException::Of(const arrow::Status& status) {
  const auto* detail = dynamic_cast<const PythonException*>(status.detail().get());
  return detail == nullptr ? nullptr : detail->exception_.get();
}

}  // namespace sabot::operators
