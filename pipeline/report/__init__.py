"""An output -> one HTML page to look at: counts of the whole, and a sample of what was labelled."""
