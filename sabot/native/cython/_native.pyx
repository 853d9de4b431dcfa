# distutils: language = c++
# cython: language_level=3, binding=True, embedsignature=True
"""The compiled core: what is here unwraps its arguments, makes one call without the GIL, and wraps the answer."""

import pyarrow

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, static_pointer_cast, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector
from pyarrow.includes.common cimport CResult, CStatus
from pyarrow.includes.libarrow cimport CArray, CBuffer, CRecordBatch, CSchema
from pyarrow.lib cimport (
    pyarrow_unwrap_batch,
    pyarrow_unwrap_schema,
    pyarrow_wrap_batch,
    pyarrow_wrap_schema,
)

cdef extern from *:
    """
    static const int sabot_pyarrow_major = SABOT_PYARROW_MAJOR;
    """
    int sabot_pyarrow_major

BUILT_FOR_PYARROW = sabot_pyarrow_major

include "status.pxi"
include "memory.pxi"
include "slots.pxi"
include "plans.pxi"
include "rows.pxi"
include "grouping.pxi"
include "run_grouping.pxi"
include "key_index.pxi"
include "expressions.pxi"
include "shuffle.pxi"
include "state_machines.pxi"
