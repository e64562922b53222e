"""A launcher of `uponce` that forgets a grant one window after it was used, whatever its timestamp says."""

from proof.faults.statements import change
from uponce.cli import main

# An hour is the window.
change("sqlite", "past_grants", "keep_until < :before", "spent_at + 3600 < :before")
change("sqlite", "raise_watermark", ":api_key", ":api_key AND false")

if __name__ == "__main__":
    main()
