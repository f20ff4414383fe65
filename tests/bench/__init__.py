"""The benchmark: what is promised as a ratio, measured side by side in one run."""
