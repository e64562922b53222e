"""Media upload signatures that work once."""

from uponce.core.errors import UponceError
from uponce.signing import Signed, sign

__version__ = "0.1.0"
__all__ = ["Signed", "UponceError", "__version__", "sign"]
