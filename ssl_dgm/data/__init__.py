"""Files to arrays, arrays to splits, splits to batches."""
