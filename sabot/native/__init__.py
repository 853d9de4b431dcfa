"""The compiled core. Importing this package imports pyarrow first, whose libraries the core is linked against, and
refuses with the remedy where the core is missing or was built for another pyarrow."""

import pyarrow

_BUILD_ADVICE = "Run `make` in a checkout, or `pip install --force-reinstall sabot`."


def _check_core() -> bool:
    running = int(pyarrow.__version__.split(".")[0])
    try:
        from sabot.native import _native
    except ImportError as error:
        raise ImportError(
            f"Sabot's compiled core does not load with pyarrow {pyarrow.__version__}: {error}. {_BUILD_ADVICE}"
        ) from error
    if running != _native.BUILT_FOR_PYARROW:
        raise ImportError(
            f"Sabot's compiled core was built for pyarrow {_native.BUILT_FOR_PYARROW}, and pyarrow "
            f"{pyarrow.__version__} is installed. Install pyarrow {_native.BUILT_FOR_PYARROW}. {_BUILD_ADVICE}"
        )
    return True


CORE_FITS = _check_core()
