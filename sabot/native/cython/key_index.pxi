# Joining by one key, without Acero.

from pyarrow.lib cimport pyarrow_unwrap_chunked_array, pyarrow_wrap_array
from pyarrow.includes.libarrow cimport CChunkedArray

cdef extern from "sabot/native/operators/key_index.h" namespace "sabot::operators" nogil:
    cdef cppclass CKeyMatches "sabot::operators::KeyMatches":
        shared_ptr[CArray] probing
        shared_ptr[CArray] indexed
    cdef cppclass CKeyIndex "sabot::operators::KeyIndex":
        @staticmethod
        CResult[unique_ptr[CKeyIndex]] Make(const CChunkedArray& keys, CMemoryPool* pool) except +
        CResult[CKeyMatches] Match(const CChunkedArray& keys) except +


cdef class KeyIndex:
    """The rows of one side of an inner join by their key; any number of threads may match at once."""

    cdef unique_ptr[CKeyIndex] index
    cdef object type

    @staticmethod
    def make(keys):
        """An index of a chunked array's rows; None for keys that are left to Acero."""
        cdef:
            KeyIndex made = KeyIndex()
            shared_ptr[CChunkedArray] c_keys = pyarrow_unwrap_chunked_array(keys)
            CMemoryPool* pool = memory_in_use()
            CResult[unique_ptr[CKeyIndex]] index
        made.type = keys.type
        with nogil:
            index = CKeyIndex.Make(_deref(c_keys), pool)
            check(index.status())
            made.index = move(_deref(index))
        return None if made.index.get() == NULL else made

    def match(self, keys):
        """Which rows match: those of `keys` and those of the index, as pairs of int32. The former are None where each
        row has one match."""
        if keys.type != self.type:
            raise _errors.InternalError(f"Keys of {keys.type} cannot be found among keys of {self.type}.")
        cdef:
            shared_ptr[CChunkedArray] c_keys = pyarrow_unwrap_chunked_array(keys)
            CResult[CKeyMatches] matches
        with nogil:
            matches = self.index.get().Match(_deref(c_keys))
            check(matches.status())
        probing = None if _deref(matches).probing.get() == NULL else pyarrow_wrap_array(_deref(matches).probing)
        return probing, pyarrow_wrap_array(_deref(matches).indexed)
