// Extension types are laid out, hashed, checked and copied as their storage.
#pragma once

#include <arrow/extension_type.h>
#include <arrow/type.h>

namespace sabot::rows {

inline const arrow::DataType& StorageOf(const arrow::DataType& type) {
  if (type.id() != arrow::Type::EXTENSION) return type;
  return StorageOf(*static_cast<const arrow::ExtensionType&>(type).storage_type());
}

}  // namespace sabot::rows
