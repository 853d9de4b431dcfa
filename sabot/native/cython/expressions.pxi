# What an expression is made of. Expression comes from morsel_runs.pxi.

from libcpp.map cimport map as cmap

cdef extern from "<optional>" namespace "std" nogil:
    cdef cppclass COptionalNames "std::optional<std::vector<std::string>>":
        cbool has_value()
        vector[string]& value()

cdef extern from "sabot/native/operators/expression_parts.h" namespace "sabot::operators" nogil:
    vector[CExpression] Conjuncts(const CExpression& expression) except +
    COptionalNames NamedColumns(const CExpression& expression) except +
    CResult[CExpression] Renamed(const CExpression& expression, const cmap[string, string]& names) except +
    CResult[cbool] AlwaysAnswers(const CExpression& expression, const CSchema& schema) except +


def conjuncts(Expression expression not None):
    """The conditions of which a filter by the expression asks all, in their order."""
    cdef vector[CExpression] found = Conjuncts(expression.expr)
    return [Expression.wrap(found[i]) for i in range(found.size())]


def named_columns(Expression expression not None):
    """The columns that the expression names; None where it means one otherwise than by name."""
    cdef COptionalNames names = NamedColumns(expression.expr)
    if not names.has_value():
        return None
    return [name.decode() for name in names.value()]


def renamed(Expression expression not None, names):
    """The expression with each column under its name in the mapping `names`."""
    cdef cmap[string, string] c_names
    for old, new in names.items():
        c_names[<string>old.encode()] = <string>new.encode()
    cdef CResult[CExpression] found = Renamed(expression.expr, c_names)
    check(found.status())
    return Expression.wrap(_deref(found))


def always_answers(Expression expression not None, schema):
    """Whether it gives a value for any row of the schema, the same whenever it is asked, and never an error."""
    cdef shared_ptr[CSchema] c_schema = pyarrow_unwrap_schema(schema)
    cdef CResult[cbool] found = AlwaysAnswers(expression.expr, c_schema.get()[0])
    check(found.status())
    return bool(_deref(found))
