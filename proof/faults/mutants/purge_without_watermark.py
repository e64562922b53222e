"""A launcher of `uponce` that forgets grants when their time is over, but not that it forgot."""

from proof.faults.statements import change
from uponce.cli import main

change("sqlite", "raise_watermark", ":api_key", ":api_key AND false")

if __name__ == "__main__":
    main()
