// Stands in for pyarrow's header of this name while _native is compiled. What Cython includes for `cimport pyarrow`
// only names NumPy's types and calls nothing of NumPy, so that neither a build nor a run of Sabot needs it installed.
#pragma once

#include "arrow/python/platform.h"

extern "C" {
typedef struct _PyArray_Descr PyArray_Descr;
}
