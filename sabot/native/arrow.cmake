# Finds the Arrow C++, Acero and Flight libraries inside the installed pyarrow, and makes them CMake targets.
# A pyarrow wheel ships only versioned files (libarrow.so.2600), so they are linked by path.
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import pyarrow, pathlib; print(pyarrow.get_include()); print(pathlib.Path(pyarrow.__file__).parent); print(int(pyarrow.__version__.split('.')[0]))"
  OUTPUT_VARIABLE pyarrow_facts OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" pyarrow_facts "${pyarrow_facts}")
list(GET pyarrow_facts 0 PYARROW_INCLUDE)
list(GET pyarrow_facts 1 PYARROW_DIR)
list(GET pyarrow_facts 2 PYARROW_MAJOR)

set(arrow_libraries arrow arrow_compute arrow_acero arrow_flight)
foreach(name IN LISTS arrow_libraries)
  add_library(pyarrow::${name} SHARED IMPORTED)
  set_target_properties(pyarrow::${name} PROPERTIES
    IMPORTED_LOCATION "${PYARROW_DIR}/lib${name}.so.${PYARROW_MAJOR}00"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${PYARROW_INCLUDE}")
  target_include_directories(pyarrow::${name} SYSTEM INTERFACE "${PYARROW_INCLUDE}")
endforeach()
