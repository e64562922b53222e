"""Media upload signatures that work once."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uponce.core.errors import UponceError
    from uponce.signing import Signed, sign

__version__ = "0.1.0"
__all__ = ["Signed", "UponceError", "__version__", "sign"]


def __getattr__(name: str) -> object:
    """Import `sign` and its types when they are used: every command imports this package first."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from uponce import signing

    return getattr(signing, name)
