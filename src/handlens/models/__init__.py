"""Models on this machine: found, shown, fetched, removed, and made of random weights."""
