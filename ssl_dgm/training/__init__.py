"""From a configuration to records: runs, checkpoints, callbacks."""
